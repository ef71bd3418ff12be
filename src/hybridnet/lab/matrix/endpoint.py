"""Who takes part in the matrix, and the cells between them. Pure values, but for the open namespaces.

Every ordered pair of endpoints is probed, not one pair for each kind: a fault on one node must show whichever
side of a connection that node is on. The table for people groups the pairs again (:mod:`.report`).
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import permutations

from msgspec import Struct

from hybridnet.kernel.namespace import Namespace
from hybridnet.model.address import Family, IPAddress, family_of

ECHO_PORT = 17007
"""TCP and UDP port of the echo servers on every endpoint; unassigned by IANA."""


class Kind(StrEnum):
    """What an endpoint is to the cluster."""

    OVERLAY = "overlay"
    UNDERLAY = "underlay"
    NODE = "node"
    EXTERNAL = "external"

    @property
    def is_pod(self) -> bool:
        """Overlay or underlay."""
        return self in (Kind.OVERLAY, Kind.UNDERLAY)


class Protocol(StrEnum):
    """What a probe is made of."""

    ICMP = "ICMP"
    TCP = "TCP"
    UDP = "UDP"


class Placement(StrEnum):
    """Where the two ends of a cell are to each other."""

    SAME = "same node"
    OTHER = "other node"
    OUTSIDE = "-"
    """One end is not on a node at all."""


class Endpoint(Struct, frozen=True):
    """A pod, a node or the external host."""

    name: str
    kind: Kind
    node: str
    """Name of its node; empty: on none."""
    namespace: Namespace
    addresses: tuple[IPAddress, ...]
    mtu: int
    """What its device must carry, in bytes."""

    def address(self, family: Family) -> IPAddress | None:
        """Its address of a family, None when it has none."""
        return next((each for each in self.addresses if family_of(each) is family), None)


class Service(Struct, frozen=True):
    """A ClusterIP Service with one endpoint."""

    name: str
    addresses: tuple[IPAddress, ...]
    port: int
    target: str
    """Name of the endpoint behind it."""


class Cell(Struct, frozen=True):
    """One probe: from, to, and how."""

    source: Endpoint
    target: Endpoint
    """Who receives it; for a Service, the endpoint behind it."""
    family: Family
    protocol: Protocol
    address: IPAddress
    """Where the probe is sent to: the target, or the Service."""
    port: int = ECHO_PORT
    service: str = ""
    """Name of the Service; empty: straight to the target."""
    routed: bool = False
    """The outside has a route to the target's node."""

    @property
    def placement(self) -> Placement:
        """Where its ends are to each other."""
        if not self.source.node or not self.target.node:
            return Placement.OUTSIDE
        return Placement.SAME if self.source.node == self.target.node else Placement.OTHER

    @property
    def mtu(self) -> int:
        """The largest IP packet that the path must carry, in bytes: no device between is smaller than both ends'."""
        return min(self.source.mtu, self.target.mtu)

    @property
    def label(self) -> str:
        """For people: ``overlay-1a -> overlay-2, IPv4 TCP``."""
        service = " by Service" if self.service else ""
        routed = " with a route outside" if self.routed else ""
        names = f"{self.source.name} -> {self.target.name}{service}{routed}"
        return f"{names}, IPv{self.family.value} {self.protocol}"


def plan_cells(endpoints: Iterable[Endpoint], services: Iterable[Service], *, outside: bool) -> list[Cell]:
    """Every cell; *outside*: also those from the external host to overlay pods with a route (``routed``)."""
    endpoints = list(endpoints)
    cells = [cell for pair in permutations(endpoints, 2) for cell in _pair(*pair)]
    if outside:
        cells += [
            cell
            for source, target in permutations(endpoints, 2)
            if (source.kind, target.kind) == (Kind.EXTERNAL, Kind.OVERLAY)
            for cell in _pair(source, target, routed=True)
        ]
    by_name = {each.name: each for each in endpoints}
    for service in services:
        cells += _to_service(endpoints, by_name[service.target], service)
    return cells


def _pair(source: Endpoint, target: Endpoint, *, routed: bool = False) -> Iterator[Cell]:
    for family in Family:
        address = target.address(family)
        if address is None or source.address(family) is None:
            continue
        for protocol in Protocol:
            yield Cell(source, target, family, protocol, address, routed=routed)


def _to_service(sources: Iterable[Endpoint], target: Endpoint, service: Service) -> Iterator[Cell]:
    for source in sources:
        if not source.kind.is_pod or source is target:
            continue
        for address in service.addresses:
            family = family_of(address)
            if source.address(family) is None or target.address(family) is None:
                continue
            for protocol in (Protocol.TCP, Protocol.UDP):
                yield Cell(source, target, family, protocol, address, service.port, service.name)
