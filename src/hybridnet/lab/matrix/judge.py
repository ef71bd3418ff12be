"""From what was sighted on the fabric to the path that a probe took."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from hybridnet.lab.matrix.cells import Cell, Endpoint, Observation, Path, Protocol, Result, Source, expect
from hybridnet.lab.matrix.frames import Sighting, Tunnel
from hybridnet.model.address import Family, IPAddress

TOO_SMALL = "the path carries packets of"
"""How a probe's error begins when the path MTU is smaller than it must be."""


class Fabric(Struct, frozen=True):
    """What a correct tunnel looks like here."""

    vni: int
    port: int
    nodes: Mapping[str, tuple[IPAddress, ...]]
    """Addresses of the nodes: the only ones that may be on the outside of a tunnelled packet."""


def judge(cell: Cell, error: str, source: str, sightings: Iterable[Sighting], fabric: Fabric) -> Result:
    """The result of one probe: *error* of the sender, *source* seen by the receiver, frames on the fabric."""
    seen = list(sightings)
    node = tuple(str(a) for a in fabric.nodes.get(cell.sender.node, ()))
    masqueraded = source in node and str(cell.sender.address(cell.family)) != source
    there, here = cell.sender.node, cell.receiver.node
    request, why = _path([s for s in seen if not s.reply], fabric, there, here, arrived=bool(source))
    reply, back = _path([s for s in seen if s.reply], fabric, here, there, arrived=not error)
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


def _path(
    seen: list[Sighting], fabric: Fabric, origin: str, destination: str, *, arrived: bool
) -> tuple[Path, str]:
    """The path of one direction and what was odd about it."""
    if not seen:
        return (Path.DIRECT if arrived else Path.NONE), ""
    if any(s.fragment for s in seen):
        return Path.MIXED, "cut into fragments"
    tunnels = [s.tunnel for s in seen if s.tunnel is not None]
    if not tunnels:
        return Path.NATIVE, ""
    if len(tunnels) != len(seen):
        return Path.MIXED, "both inside and outside the tunnel"
    for tunnel in tunnels:
        if odd := _oddity(tunnel, fabric, origin, destination):
            return Path.MIXED, odd
    return Path.VXLAN, ""


def _oddity(tunnel: Tunnel, fabric: Fabric, origin: str, destination: str) -> str:
    """What is wrong with the encapsulation of a packet from node *origin* to node *destination*."""
    if (tunnel.vni, tunnel.port) != (fabric.vni, fabric.port):
        wrong, right = f"VNI {tunnel.vni} port {tunnel.port}", f"{fabric.vni} port {fabric.port}"
        return f"{wrong} instead of {right}"
    begins = tunnel.source in fabric.nodes.get(origin, ())
    ends = tunnel.destination in fabric.nodes.get(destination, ())
    if begins and ends:
        return ""
    wanted = f"from {origin or 'no node'} to {destination or 'no node'}"
    return f"tunnelled {tunnel.source} → {tunnel.destination}, not {wanted}"


def where_to_look(result: Result) -> str:
    """The next step for a cell that is not as expected: commands, and on which node."""
    cell, expected, seen = result.cell, result.expected, result.seen
    if not expected.reached:
        return f"nobody outside should have a route to {cell.target}: look at the router's routes"
    hints = []
    if TOO_SMALL in seen.detail:
        hints.append(f"on {cell.sender.node or 'the router'}: ip link show: which device has a smaller MTU")
    lost_there = not seen.source or seen.request is not expected.request
    if lost_there:
        hints.append(_lost(cell.sender, cell.receiver, cell.family, expected.request, seen.request))
    lost_back = not seen.reached or seen.reply is not expected.reply
    unknown = cell.protocol is Protocol.TCP and not seen.source  # a failed handshake leaves no marked frame
    if lost_back and (not lost_there or unknown):  # else it is but a consequence
        hints.append(_lost(cell.receiver, cell.sender, cell.family, expected.reply, seen.reply))
    if not lost_there and seen.source not in result.sources:
        hints.append(_nat(cell))
    return "; ".join(dict.fromkeys(hints))


def _lost(origin: Endpoint, end: Endpoint, family: Family, expected: Path, seen: Path) -> str:
    """Where packets from *origin* to *end* went astray."""
    ip, to = f"ip -{family}", end.address(family)
    if expected is Path.DIRECT:
        return f"on {origin.node}: {ip} rule show pref 2000; {ip} route show table 39999 {to}"
    if expected is Path.VXLAN:
        return _lost_tunnelled(origin, end, ip, seen)
    if seen in (Path.NATIVE, Path.MASQUERADED):
        return f"on {end.node or 'the router'}: {ip} neigh show proxy; {ip} route show table 39999"
    rules = f"{ip} rule; {ip} route show table all; nft list chain inet hybridnet classify"
    hosting = f"; on {end.node}: {ip} neigh show proxy" if end.node else ""
    return f"on {origin.node or 'the router'}: {rules}{hosting}"


def _lost_tunnelled(origin: Endpoint, end: Endpoint, ip: str, seen: Path) -> str:
    if seen is Path.VXLAN:
        return f"the tunnel is right: on {end.node}: {ip} rule show pref 2000; {ip} route show table 39999"
    if seen is Path.MIXED:
        return f"the tunnel is wrong: on {origin.node}: bridge fdb show; ip -d link show type vxlan"
    tables = f"{ip} rule; {ip} route show table 40000; {ip} route show table 40002"
    if seen in (Path.NATIVE, Path.MASQUERADED):
        return (
            f"it left beside the tunnel: on {origin.node}: {tables}; nft list chain inet hybridnet from_pod"
        )
    neighbours = f"{ip} neigh show nud all; bridge fdb show; ip link show type vxlan"
    return f"nothing came out of the tunnel: on {origin.node}: {tables}; {neighbours}"


def _nat(cell: Cell) -> str:
    lists = f"nft list chain inet hybridnet nat; nft list map inet hybridnet pod{cell.family}"
    return f"on {cell.sender.node or 'the router'}: {lists}"
