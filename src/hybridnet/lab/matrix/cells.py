"""What the access matrix consists of, and what each of its cells must show.

The expectation is a pure function of who speaks with whom and where they are. It restates the promise of the data
plane independently of the code that makes it true: a connection with an overlay end is tunnelled both ways without
NAT, underlay to underlay stays native, only overlay pods that leave the cluster are masqueraded.
"""

from enum import StrEnum

from msgspec import Struct

from hybridnet.model.address import Family, IPAddress

NO_ROUTE, ROUTE = "no route", "route"
"""Whether the outside has been told which node an overlay pod is on."""


class Kind(StrEnum):
    """Who speaks."""

    OVERLAY = "overlay"
    UNDERLAY = "underlay"
    NODE = "node"
    EXTERNAL = "external"


class Protocol(StrEnum):
    """How they speak."""

    ICMP = "ICMP"
    TCP = "TCP"
    UDP = "UDP"


class Path(StrEnum):
    """How packets of one direction travelled."""

    NONE = "-"
    DIRECT = "direct"
    VXLAN = "vxlan"
    NATIVE = "native"
    MASQUERADED = "masqueraded"
    MIXED = "mixed"


class Source(StrEnum):
    """Whose address the receiver must see."""

    SENDER = "sender"
    NODE = "node of the sender"


class Endpoint(Struct, frozen=True):
    """Somebody who can be reached."""

    name: str
    kind: Kind
    node: str
    """Where it runs; empty for the external host."""
    netns: str
    """Path of its network namespace."""
    addresses: tuple[IPAddress, ...]
    mtu: int

    def address(self, family: Family) -> IPAddress:
        """Its address of a family. LookupError when it has none."""
        return next(a for a in self.addresses if a.version == family)


class Expectation(Struct, frozen=True):
    """What a cell must show."""

    reached: bool
    source: Source = Source.SENDER
    request: Path = Path.NONE
    reply: Path = Path.NONE


class Cell(Struct, frozen=True):
    """One question of the matrix."""

    sender: Endpoint
    receiver: Endpoint
    family: Family
    protocol: Protocol
    note: str = ""
    """Empty, ``service`` (by ClusterIP), NO_ROUTE or ROUTE (from outside to overlay)."""
    service: IPAddress | None = None
    """The ClusterIP that stands for the receiver."""

    @property
    def same_node(self) -> bool:
        """Whether both ends are on one node."""
        return bool(self.sender.node) and self.sender.node == self.receiver.node

    @property
    def target(self) -> IPAddress:
        """The address that the sender uses."""
        return self.service if self.service is not None else self.receiver.address(self.family)

    @property
    def mtu(self) -> int:
        """The largest IP packet that must get through, in bytes: nothing between is smaller than both ends."""
        return min(self.sender.mtu, self.receiver.mtu)

    @property
    def place(self) -> str:
        """Where its ends are to each other, or what the outside knows of the receiver."""
        if Kind.EXTERNAL in (self.sender.kind, self.receiver.kind):
            return {ROUTE: "with route", NO_ROUTE: "no route"}.get(self.note, "outside")
        return "same node" if self.same_node else "other node"

    @property
    def row(self) -> tuple[str, str]:
        """Row of the table: who to whom, and where."""
        service = " svc" if self.service is not None else ""
        return f"{self.sender.kind} → {self.receiver.kind}{service}", self.place


class Observation(Struct, frozen=True):
    """What was seen of a cell."""

    reached: bool
    source: str = ""
    request: Path = Path.NONE
    reply: Path = Path.NONE
    detail: str = ""
    """Errors, and everything odd that was seen on the wire."""


class Result(Struct, frozen=True):
    """A cell with what it must show and what it showed."""

    cell: Cell
    expected: Expectation
    seen: Observation
    sources: tuple[str, ...]
    """Addresses that count as the expected source."""

    @property
    def ok(self) -> bool:
        """Whether it showed what it must."""
        if self.seen.reached != self.expected.reached:
            return False
        if not self.expected.reached:
            return True
        paths = (self.seen.request, self.seen.reply) == (self.expected.request, self.expected.reply)
        return paths and self.seen.source in self.sources


def expect(cell: Cell) -> Expectation:
    """What *cell* must show: design, "the whole access matrix"; overlay subnets masquerade."""
    sender, receiver = cell.sender.kind, cell.receiver.kind
    if sender is Kind.EXTERNAL and receiver is Kind.OVERLAY and cell.note != ROUTE:
        return Expectation(reached=False)
    if cell.same_node:
        return Expectation(reached=True, request=Path.DIRECT, reply=Path.DIRECT)
    overlay_end = Kind.OVERLAY in (sender, receiver)
    if overlay_end and Kind.EXTERNAL not in (sender, receiver) and receiver is not Kind.NODE:
        return Expectation(reached=True, request=Path.VXLAN, reply=Path.VXLAN)
    if sender is Kind.OVERLAY:
        return Expectation(reached=True, source=Source.NODE, request=Path.MASQUERADED, reply=Path.NATIVE)
    return Expectation(reached=True, request=Path.NATIVE, reply=Path.NATIVE)
