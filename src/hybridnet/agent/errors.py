"""What can go wrong in answering the container runtime.

AgentError
└── CniError            an answer of the CNI specification: code, message, details
    ├── BadRequest      the call itself is wrong (codes 4 and 7); trying again is useless
    ├── AddressMissing  the manager has not given the pod its addresses within the deadline (code 11)
    ├── SegmentMissing  this node cannot serve the subnet of an address (code 11)
    └── NotReady        the agent has not yet seen the cluster (code 11; 50 for STATUS)

Codes: https://www.cni.dev/docs/spec/#error (11: try again later; 100 and above are the plugin's own).
"""

INVALID_ENVIRONMENT = 4
DECODE_FAILED = 6
INVALID_CONFIGURATION = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
INTERNAL = 999


class AgentError(Exception):
    """Base of the agent's own errors."""


class CniError(AgentError):
    """An error that the runtime is shown, and through it ``kubectl describe pod``."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class BadRequest(CniError):
    """The runtime's call is malformed."""


class AddressMissing(CniError):
    """No address for the pod yet."""

    def __init__(self, message: str) -> None:
        super().__init__(TRY_AGAIN_LATER, message)


class SegmentMissing(CniError):
    """The node cannot serve the pod's subnet."""

    def __init__(self, message: str) -> None:
        super().__init__(TRY_AGAIN_LATER, message)


class NotReady(CniError):
    """The agent is not able to answer yet."""

    def __init__(self, message: str, code: int = TRY_AGAIN_LATER) -> None:
        super().__init__(code, message)
