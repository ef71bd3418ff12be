"""From what was sighted on the fabric to the path that a probe took."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from hybridnet.lab.matrix.cells import Cell, Observation, Path, Result, Source, expect
from hybridnet.lab.matrix.frames import Sighting, Tunnel
from hybridnet.model.address import IPAddress


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
