"""What the API server can answer, and what that means for the caller.

KubeError
├── ConfigError           no usable kubeconfig
└── ApiError              an answer, or the lack of one: status, reason, message
    ├── NotFound          404
    ├── AlreadyExists     409 AlreadyExists
    ├── Conflict          409: somebody wrote in between; read again
    ├── Expired           410: the resourceVersion is too old; list again
    ├── Forbidden         401 and 403: apply the RBAC manifests, or renew the credentials
    ├── Invalid           400 and 422: the object is wrong; trying again is useless
    ├── TooManyRequests   429: not done, later
    └── Unavailable       connection lost, time-out, 5xx: a write may or may not have been done; read again
"""

import msgspec
from msgspec import Struct


class KubeError(Exception):
    """Base of this package's errors."""


class ConfigError(KubeError):
    """There is no usable kubeconfig."""


class ApiError(KubeError):
    """The API server refused, or could not be reached."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """No such object."""


class AlreadyExists(ApiError):
    """An object of that name exists."""


class Conflict(ApiError):
    """The object was changed since it was read, or a precondition does not hold."""


class Expired(ApiError):
    """The resourceVersion is too old for a watch or a continued list."""


class Forbidden(ApiError):
    """The credentials do not allow it."""


class Invalid(ApiError):
    """The request or the object is wrong."""


class TooManyRequests(ApiError):
    """The server is busy; nothing was done."""


class Unavailable(ApiError):
    """No answer. A write is ambiguous: it may have been done."""


class _Status(Struct):
    """metav1.Status, the part that we read."""

    reason: str = ""
    message: str = ""


_DECODER = msgspec.json.Decoder(_Status)
_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    422: Invalid,
    429: TooManyRequests,
}


def error_of(status: int, body: bytes, what: str) -> ApiError:
    """The error for an HTTP answer that is not 2xx; *what* is "VERB path", for the message."""
    try:
        answer = _DECODER.decode(body)
    except msgspec.DecodeError:
        answer = _Status(message=body[:200].decode(errors="replace").strip())
    kind = _BY_STATUS.get(status, Unavailable)
    if answer.reason == "AlreadyExists":
        kind = AlreadyExists
    text = answer.message or f"HTTP {status}"
    if kind is Forbidden:
        advice = "renew the credentials" if status == 401 else "apply the project's RBAC manifests"
        text = f"{text} ({what}): {advice}"
    return kind(status, answer.reason, text)
