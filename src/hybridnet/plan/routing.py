"""Rules and tables of a node: how a packet's class chooses between pod, tunnel, segment and main table.

Any connection with an overlay end is tunnelled both ways, without NAT; underlay to underlay stays native. The
tables say it by destination, the classes (``layout``) by where the packet came from:

* an overlay destination is tunnelled whoever sends (table 40000);
* an underlay destination is tunnelled when an overlay pod sends (tables 40002 and 40003), else native;
* what no pod can have (gateway, exclusions, nodes) is thrown back to the next rule: reached natively.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hybridnet.model.address import Family, IPAddress, IPNetwork
from hybridnet.model.network import NetworkType
from hybridnet.plan import layout
from hybridnet.plan.exclusion import excluded_blocks
from hybridnet.plan.segment import Segment
from hybridnet.plan.state import DEFAULT_ROUTE, Route, RouteType, Rule, RuleAction
from hybridnet.plan.view import NodeView, SubnetView, Vtep

POD_GATEWAY: dict[Family, IPAddress] = {
    Family.V4: IPv4Address("169.254.1.1"),
    Family.V6: IPv6Address("fe80::ecee:eeff:feee:eeee"),
}
"""What every pod's default route points to; the v6 one is the EUI-64 address of POD_GATEWAY_MAC."""


def host_network(address: IPAddress) -> IPNetwork:
    """The /32 or /128 of an address."""
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), 32))
    return IPv6Network((int(address), 128))


def plan_rules(view: NodeView, segments: Iterable[Segment]) -> list[Rule]:
    """All rules, for each family that the kernel has. Their number grows with gateways, not with subnets."""
    classes = {(s.subnet.family, s.mark) for s in segments if s.native}
    rules: list[Rule] = []
    for family in sorted(view.families):
        rules += _fixed_rules(family, tunnel=view.vtep is not None)
        rules += [
            Rule(
                family,
                layout.PRIORITY_UNDERLAY + slot,
                RuleAction.LOOKUP,
                layout.TABLE_UNDERLAY + slot,
                layout.class_mark(layout.CLASS_UNDERLAY + slot),
                layout.CLASS_MASK,
            )
            for slot in sorted(_slot(mark) for fam, mark in classes if fam is family)
        ]
    return rules


def _slot(mark: int) -> int:
    return (mark >> layout.CLASS_SHIFT) - layout.CLASS_UNDERLAY


def _fixed_rules(family: Family, *, tunnel: bool) -> list[Rule]:
    nat, direct = layout.class_mark(layout.CLASS_OVERLAY_NAT), layout.class_mark(layout.CLASS_OVERLAY)
    lookup, mask = RuleAction.LOOKUP, layout.CLASS_MASK
    rules = [
        Rule(family, layout.PRIORITY_LOCAL, lookup, layout.TABLE_LOCAL),
        Rule(family, layout.PRIORITY_SKIP, RuleAction.GOTO, layout.PRIORITY_END, 0, mask),
        Rule(family, layout.PRIORITY_END, RuleAction.NOP),
    ]
    if tunnel:
        rules += [
            Rule(family, layout.PRIORITY_TO_OVERLAY, lookup, layout.TABLE_TO_OVERLAY),
            Rule(
                family,
                layout.PRIORITY_TUNNEL,
                lookup,
                layout.TABLE_TUNNEL,
                layout.MARK_TUNNEL,
                layout.MARK_TUNNEL,
            ),
            Rule(family, layout.PRIORITY_FROM_OVERLAY_NAT, lookup, layout.TABLE_FROM_OVERLAY_NAT, nat, mask),
            Rule(family, layout.PRIORITY_FROM_OVERLAY, lookup, layout.TABLE_FROM_OVERLAY, direct, mask),
        ]
    return rules


def plan_tunnel_routes(view: NodeView, device: str) -> list[Route]:
    """What goes into the tunnel: overlay CIDRs for everybody, underlay CIDRs for overlay pods."""
    routes: list[Route] = []
    subnets = [s for s in view.subnets if s.family in view.families]
    overlay = [s for s in subnets if s.type is NetworkType.OVERLAY]
    underlay = [s for s in subnets if s.type is not NetworkType.OVERLAY]
    for cidr, holes in excluded_blocks(overlay).items():
        source = view.source(Family(cidr.version))
        routes.append(Route(layout.TABLE_TO_OVERLAY, cidr, device, source=source))
        routes += [Route(layout.TABLE_TO_OVERLAY, hole, type=RouteType.THROW) for hole in holes]
    for cidr, holes in excluded_blocks(underlay).items():
        for table in (layout.TABLE_FROM_OVERLAY_NAT, layout.TABLE_FROM_OVERLAY):
            routes.append(Route(table, cidr, device))
        routes += [Route(layout.TABLE_FROM_OVERLAY_NAT, hole, type=RouteType.THROW) for hole in holes]
        routes += [Route(layout.TABLE_FROM_OVERLAY, hole, type=RouteType.UNREACHABLE) for hole in holes]
    for family in sorted(view.families):
        everything = DEFAULT_ROUTE[family]
        routes.append(Route(layout.TABLE_TUNNEL, everything, device))
        routes.append(Route(layout.TABLE_FROM_OVERLAY, everything, type=RouteType.UNREACHABLE))
    return list({r.key: r for r in routes}.values())


def plan_underlay_routes(segments: Iterable[Segment]) -> list[Route]:
    """For each underlay class its own table: the segment on link, everything else by the gateway."""
    routes: dict[tuple[int, IPNetwork], Route] = {}
    for segment in segments:
        subnet = segment.subnet
        if not segment.native:
            continue
        table = layout.TABLE_UNDERLAY + _slot(segment.mark)
        wanted = [Route(table, subnet.cidr, segment.device)]
        if subnet.gateway is not None:
            everything = DEFAULT_ROUTE[subnet.family]
            wanted.append(Route(table, everything, segment.device, gateway=subnet.gateway, onlink=True))
        routes.update({r.key: r for r in wanted})
    return list(routes.values())


def plan_peer_routes(peer: Vtep, subnets: Iterable[SubnetView], device: str) -> list[Route]:
    """How overlay pods reach another node: natively, unless their subnet forbids masquerade (then by tunnel).

    A node address inside an underlay CIDR would otherwise be taken for a pod.
    """
    cidrs = {s.cidr for s in subnets if s.type is not NetworkType.OVERLAY}
    direct = any(s.type is NetworkType.OVERLAY and not s.auto_nat for s in subnets)
    routes: list[Route] = []
    for address in peer.local_addresses:
        host = host_network(address)
        if any(address in cidr for cidr in cidrs):
            routes.append(Route(layout.TABLE_FROM_OVERLAY_NAT, host, type=RouteType.THROW))
        if direct:
            routes.append(Route(layout.TABLE_FROM_OVERLAY, host, device))
    return routes
