"""What every cell must show: the table of the architecture as a pure function.

The three facts that it spells: a connection with an overlay end is tunnelled both ways without NAT; underlay to
underlay stays native; what leaves an overlay pod for anything that is no pod is masqueraded as its node. This is
written from the documents, deliberately not from ``hybridnet.plan``: a table derived from the code under test
agrees with its mistakes.
"""

from enum import StrEnum

from msgspec import Struct

from hybridnet.lab.matrix.endpoint import Cell, Kind, Placement


class Path(StrEnum):
    """How packets of one direction crossed the fabric."""

    DIRECT = "direct"
    """No frame on the fabric."""
    VXLAN = "vxlan"
    """In the tunnel between the two nodes, and only there."""
    NATIVE = "native"
    """Not encapsulated, with the ends' own addresses."""
    MASQUERADED = "masqueraded"
    """Not encapsulated, with the node's address in place of the pod's."""
    MIXED = "mixed"
    """More than one of these, or a tunnel that is not the one between the two nodes."""
    NONE = "nothing"
    """No frame on the fabric, and nothing arrived."""


class Origin(StrEnum):
    """Whose address the receiver sees."""

    SENDER = "sender"
    NODE = "node"
    """The node of the sending pod."""


class Expectation(Struct, frozen=True):
    """What a cell must show."""

    reached: bool
    path: Path = Path.NONE
    """Of request and reply alike: no connection may leave by one way and come back by another."""
    origin: Origin = Origin.SENDER


_PODS = frozenset({Kind.OVERLAY, Kind.UNDERLAY})
_UNREACHED = Expectation(reached=False)


def expect(cell: Cell) -> Expectation:
    """What *cell* must show when overlay subnets masquerade and underlay subnets are untagged."""
    ends = {cell.source.kind, cell.target.kind}
    if cell.placement is Placement.SAME:
        return Expectation(reached=True, path=Path.DIRECT)
    if cell.source.kind is Kind.OVERLAY and cell.target.kind not in _PODS:
        return Expectation(reached=True, path=Path.MASQUERADED, origin=Origin.NODE)
    if cell.source.kind is Kind.EXTERNAL and cell.target.kind is Kind.OVERLAY:
        return Expectation(reached=True, path=Path.NATIVE) if cell.routed else _UNREACHED
    if Kind.OVERLAY in ends:
        return Expectation(reached=True, path=Path.VXLAN)
    return Expectation(reached=True, path=Path.NATIVE)
