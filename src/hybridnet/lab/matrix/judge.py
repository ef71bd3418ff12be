"""From what was sighted on the fabric to the path that a probe took."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from hybridnet.lab.matrix.cells import Cell, Observation, Path, Result, Source, expect
from hybridnet.lab.matrix.frames import Sighting
from hybridnet.model.address import IPAddress


class Fabric(Struct, frozen=True):
    """What a correct tunnel looks like here."""

    vni: int
    nodes: Mapping[str, tuple[IPAddress, ...]]
    """Addresses of the nodes: the only ones that may be on the outside of a tunnelled packet."""


def judge(cell: Cell, error: str, source: str, sightings: Iterable[Sighting], fabric: Fabric) -> Result:
    """The result of one probe: *error* of the sender, *source* seen by the receiver, frames on the fabric."""
    seen = list(sightings)
    node = tuple(str(a) for a in fabric.nodes.get(cell.sender.node, ()))
    masqueraded = source in node and str(cell.sender.address(cell.family)) != source
    request, why = _path([s for s in seen if not s.reply], fabric, cell.sender.node, cell.receiver.node)
    reply, back = _path([s for s in seen if s.reply], fabric, cell.receiver.node, cell.sender.node)
    if request is Path.NATIVE and masqueraded:
        request = Path.MASQUERADED
    expected = expect(cell)
    own = tuple(str(a) for a in cell.sender.addresses)
    return Result(
        cell=cell,
        expected=expected,
        seen=Observation(
            reached=not error,
            source=source,
            request=request,
            reply=reply,
            detail="; ".join(t for t in (error, why, back) if t),
        ),
        sources=own if expected.source is Source.SENDER else node,
    )


def _path(seen: list[Sighting], fabric: Fabric, origin: str, destination: str) -> tuple[Path, str]:
    """The path of one direction and what was odd about it."""
    if not seen:
        return Path.DIRECT, ""
    tunnelled = [s for s in seen if s.vni is not None]
    if len(tunnelled) not in (0, len(seen)):
        return Path.MIXED, "both inside and outside the tunnel"
    if not tunnelled:
        return Path.NATIVE, ""
    vnis = {s.vni for s in tunnelled}
    if vnis != {fabric.vni}:
        return Path.MIXED, f"VNI {', '.join(map(str, vnis))} instead of {fabric.vni}"
    ends = {s.outer for s in tunnelled if s.outer is not None}
    wanted_from, wanted_to = fabric.nodes.get(origin, ()), fabric.nodes.get(destination, ())
    for begin, end in ends:
        if begin not in wanted_from or end not in wanted_to:
            return Path.MIXED, f"tunnelled {begin} → {end}, not from {origin} to {destination}"
    return Path.VXLAN, ""


def where_to_look(result: Result) -> str:
    """The next step for a cell that is not as expected."""
    cell, expected, seen = result.cell, result.expected, result.seen
    node = cell.sender.node or cell.receiver.node
    if expected.reached and not seen.reached:
        return _unreached(cell, seen, node)
    if not expected.reached:
        return f"nobody outside should have a route to {cell.target}: look at the router's routes"
    if (seen.request, seen.reply) != (expected.request, expected.reply):
        late = cell.receiver.node if seen.request == expected.request else cell.sender.node
        return (
            f"on {late or 'the router'}: ip rule; ip route show table all | grep proto; "
            "nft list chain inet hybridnet classify"
        )
    lists = f"nft list chain inet hybridnet nat; nft list map inet hybridnet pod{cell.family}"
    return f"on {cell.sender.node}: {lists}"


def _unreached(cell: Cell, seen: Observation, node: str) -> str:
    if expect(cell).request is Path.VXLAN:
        if seen.request is Path.VXLAN:
            return (
                f"the request left through the tunnel: on {cell.receiver.node}: ip route show table 39999, "
                f"on {cell.sender.node}: bridge fdb show"
            )
        return (
            f"nothing came out of the tunnel: on {cell.sender.node}: ip rule show pref 2010, ip route show table "
            f"40000, ip neigh show {cell.target}, bridge fdb show"
        )
    if expect(cell).request is Path.DIRECT:
        return f"on {node}: ip rule show pref 2000, ip route show table 39999 {cell.target}"
    return (
        f"on {cell.receiver.node or 'the router'}: ip neigh show proxy, ip route show table 39999; "
        f"on {cell.sender.node or 'the router'}: ip rule, the gateway's ARP"
    )
