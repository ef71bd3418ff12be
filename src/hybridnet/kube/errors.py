"""What the API server can answer, and what that means for the caller.

KubeError
├── ConfigError           no usable kubeconfig
└── ApiError              an answer, or the lack of one: status, reason, message
    ├── NotFound          404: the API server knows the kind, and there is no such object
    ├── UnknownKind       404 for the whole kind: apply the CustomResourceDefinitions
    ├── AlreadyExists     409 AlreadyExists
    ├── Conflict          409: somebody wrote in between; read again
    ├── Expired           410, or a resourceVersion from another life of the server: list again
    ├── Forbidden         401 and 403: apply the RBAC manifests, or renew the credentials
    ├── Invalid           400, 413, 422: the object is wrong; trying again is useless
    ├── TooManyRequests   429: not done, later
    ├── Malformed         the answer does not have the shape of its kind: mend or delete the object
    └── Unavailable       connection lost, time-out, 5xx: a write may or may not have been done; read again

NotFound and UnknownKind are not related on purpose: who frees an address because its owner is not found must not
do so because somebody deleted a definition.
"""

import msgspec
from msgspec import Struct


class KubeError(Exception):
    """Base of this package's errors."""


class ConfigError(KubeError):
    """There is no usable kubeconfig."""


class ApiError(KubeError):
    """The API server refused, or could not be reached."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float = 0) -> None:
        """*status* is 0 when there was no answer; *retry_after* is what the server asks for, in seconds."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """No such object."""


class UnknownKind(ApiError):
    """The API server does not serve this kind."""


class AlreadyExists(ApiError):
    """An object of that name exists."""


class Conflict(ApiError):
    """The object was changed since it was read, or a precondition does not hold."""


class Expired(ApiError):
    """The resourceVersion is of no use for a watch or a continued list."""


class Forbidden(ApiError):
    """The credentials do not allow it."""


class Invalid(ApiError):
    """The request or the object is wrong."""


class TooManyRequests(ApiError):
    """The server is busy; nothing was done."""


class Malformed(ApiError):
    """What the server answered is no object of this kind."""


class Unavailable(ApiError):
    """No answer. A write is ambiguous: it may have been done."""


class _Cause(Struct):
    """metav1.StatusCause."""

    reason: str = ""


class _Details(Struct):
    """metav1.StatusDetails."""

    name: str = ""
    causes: list[_Cause] = []


class _Status(Struct):
    """metav1.Status, the part that we read."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_DECODER = msgspec.json.Decoder(_Status)
_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: Invalid,
    422: Invalid,
    429: TooManyRequests,
}


def error_of(status: int, body: bytes, what: str, *, retry_after: float = 0) -> ApiError:
    """The error for an HTTP answer that is not 2xx, or for the ERROR line of a watch (*status* 0).

    *what* is "VERB path", for the message.
    """
    try:
        answer = _DECODER.decode(body)
    except msgspec.DecodeError:
        answer = _Status(message=body[:200].decode(errors="replace").strip())
    status = status or answer.code or 500
    kind = _kind_of(status, answer)
    message = answer.message or f"HTTP {status}"
    if advice := _advice(kind, status, answer):
        message = f"{message} ({what}): {advice}"
    return kind(status, answer.reason, message, retry_after=retry_after)


def _kind_of(status: int, answer: _Status) -> type[ApiError]:
    causes = answer.details.causes if answer.details else []
    if any(cause.reason == "ResourceVersionTooLarge" for cause in causes):
        return Expired  # etcd was restored, or this server lags: only a list tells what is true now
    if answer.reason == "AlreadyExists":
        return AlreadyExists
    if status == 404 and not (answer.details and answer.details.name):
        return UnknownKind
    return _BY_STATUS.get(status, Unavailable)


def _advice(kind: type[ApiError], status: int, answer: _Status) -> str:
    if kind is Forbidden:
        if answer.details and answer.details.causes:  # for example a namespace that is being deleted
            return ""
        return "renew the credentials" if status == 401 else "apply the RBAC manifests of this project"
    if kind is UnknownKind:
        return "apply the CustomResourceDefinitions: hybridnet crds | kubectl apply --server-side -f -"
    return ""
