"""Why an address cannot be given, told so that the operator knows what to do next.

    IPAMError
    +-- RangeError            a Subnet's addresses make no sense; names the field
    +-- SelectionError        what a pod asks for cannot be met by what exists
    |   +-- InvalidRequest    the request contradicts itself or the objects it names
    |   +-- UnknownNetwork    a network that does not exist
    |   +-- UnknownSubnet     a subnet that does not exist or cannot be used
    |   +-- UnknownNode       the pod's node is not known yet
    |   +-- UnknownNamespace  the pod's namespace is not known yet
    |   +-- NoNetwork         no network of the wanted type serves the node
    |   +-- NodeNotInNetwork  the named network does not serve the node
    +-- NoAddress             nothing is left to give
        +-- NoSubnet          the network has no subnet of that family
        +-- Exhausted         every address is in use

Each message is a sentence that ends up in an event or a condition.
"""

from hybridnet.model.address import Family


class IPAMError(Exception):
    """Base of everything the address management refuses."""


class RangeError(IPAMError):
    """A Subnet's range is not usable; ``field`` is the path of the culprit, for example ``spec.range.start``."""

    def __init__(self, field: str, message: str) -> None:
        self.field = f"spec.range.{field}"
        super().__init__(f"{self.field}: {message}")


class SelectionError(IPAMError):
    """A pod's request cannot be met; waiting alone does not help, some object must change."""


class InvalidRequest(SelectionError):
    """The request contradicts itself, or the objects that it names."""


class UnknownNetwork(SelectionError):
    """The named Network does not exist."""


class UnknownSubnet(SelectionError):
    """The named Subnet does not exist, or its own condition says why it cannot be used."""


class UnknownNode(SelectionError):
    """The pod's Node object is not known (yet)."""


class UnknownNamespace(SelectionError):
    """The pod's Namespace object is not known yet: the pod was seen first. It follows within moments."""


class NoNetwork(SelectionError):
    """No Network of the wanted type serves the node."""


class NodeNotInNetwork(SelectionError):
    """The named Network does not serve the node that the pod is bound to."""


class NoAddress(IPAMError):
    """Nothing is left to give; a freed address or a new subnet helps.

    ``network``, ``family`` and ``subnet`` (None when none was named) tell what the pod waits for.
    """

    def __init__(self, message: str, *, network: str, family: Family, subnet: str | None) -> None:
        self.network = network
        self.family = family
        self.subnet = subnet
        super().__init__(message)


class NoSubnet(NoAddress):
    """The network has no usable subnet of that family."""


class Exhausted(NoAddress):
    """Every address that could be given is in use."""
