"""The whole desired state of a node that is not a pod's: devices, rules, tables, sysctls, peers.

Cut into scopes by what makes them change, so that one event costs the difference of one scope: the node itself
with its subnets, and one scope for each peer's tunnel endpoint.
"""

from ipaddress import ip_interface

from msgspec import Struct

from hybridnet.model.address import Family, family_of
from hybridnet.plan import layout
from hybridnet.plan.firewall import element, node_set, plan_tables
from hybridnet.plan.routing import (
    POD_GATEWAY,
    host_network,
    plan_peer_routes,
    plan_rules,
    plan_tunnel_routes,
    plan_underlay_routes,
)
from hybridnet.plan.segment import Segment, plan_segments, vxlan_mtu, vxlan_name
from hybridnet.plan.state import (
    FdbEntry,
    KernelObject,
    LinkAddress,
    NftTable,
    Route,
    Sysctl,
    VxlanLink,
)
from hybridnet.plan.view import Nic, NodeView, Problem, Vtep

_RESOLUTION = (("app_solicit", "1"), ("mcast_resolicit", "3"))
"""On the tunnel a miss asks the agent first. An entry in use that stays unanswered is asked for by broadcast
before it is given up, so traffic goes on while neither agent nor API server answers."""


class NodePlan(Struct, frozen=True):
    """What a node needs, and what could not be planned."""

    tunnel: str
    """Name of the VXLAN device; empty when there is none."""
    segments: dict[str, Segment]
    objects: tuple[KernelObject, ...]
    tables: tuple[NftTable, ...]
    problems: tuple[Problem, ...]


class PeerPlan(Struct, frozen=True):
    """What one other node's tunnel endpoint needs (elements as in EndpointPlan)."""

    objects: tuple[KernelObject, ...]
    elements: tuple[tuple[str, str, str], ...]


def plan_node(view: NodeView) -> NodePlan:
    """The node's own scope."""
    segments, problems = plan_segments(view)
    objects: list[KernelObject] = [*_node_sysctls(view)]
    tunnel = ""
    if view.nic is not None and view.vtep is not None and view.vni is not None:
        tunnel = vxlan_name(view.vni)
        objects += _tunnel(view, view.nic, view.vtep, view.vni)
        objects += plan_tunnel_routes(view, tunnel)
    for device in sorted({s.device for s in segments.values() if s.native}):
        objects += _answering(view, device)
    objects += plan_underlay_routes(segments.values())
    gateway = POD_GATEWAY[Family.V4]
    objects.append(Route(layout.TABLE_LOCAL, host_network(gateway), "lo"))
    objects += plan_rules(view, segments.values())
    return NodePlan(
        tunnel=tunnel,
        segments=segments,
        objects=tuple(objects),
        tables=tuple(plan_tables(view, segments.values(), tunnel)),
        problems=(*view.problems, *problems),
    )


def plan_peer(peer: Vtep, view: NodeView, tunnel: str) -> PeerPlan:
    """Another node's scope: its FDB entries, its addresses as tunnel sources, and routes to the node itself."""
    own = view.vtep
    if not tunnel or own is None or peer.node == own.node:
        return PeerPlan((), ())
    objects: list[KernelObject] = []
    if family_of(peer.address) is family_of(own.address):
        objects.append(FdbEntry(tunnel, peer.mac, peer.address))
        objects.append(FdbEntry(tunnel, layout.BROADCAST_MAC, peer.address))
    objects += plan_peer_routes(peer, view.subnets, tunnel)
    elements = tuple(
        (node_set(family_of(a)), element(a), "")
        for a in peer.local_addresses
        if family_of(a) in view.families
    )
    return PeerPlan(tuple(objects), elements)


def _tunnel(view: NodeView, nic: Nic, vtep: Vtep, vni: int) -> list[KernelObject]:
    name = vxlan_name(vni)
    link = VxlanLink(
        name=name,
        vni=vni,
        parent=nic.name,
        local=vtep.address,
        port=layout.VXLAN_PORT,
        mac=vtep.mac,
        mtu=vxlan_mtu(nic, vtep.address),
    )
    local = [
        LinkAddress(name, ip_interface(a)) for a in vtep.local_addresses if family_of(a) in view.families
    ]
    neigh = [
        Sysctl(f"net/ipv{family.value}/neigh/{name}/{knob}", value)
        for family in sorted(view.families)
        for knob, value in _RESOLUTION
    ]
    quiet = [
        Sysctl(f"net/ipv6/conf/{name}/accept_ra", "0"),
        Sysctl(f"net/ipv6/conf/{name}/accept_dad", "0"),
    ]
    return [link, *local, *neigh, *(quiet if Family.V6 in view.families else []), *_answering(view, name)]


def _answering(view: NodeView, device: str) -> list[Sysctl]:
    """Proxy ARP and NDP without the kernel's random delay (0.8 s by default), paths may be asymmetric."""
    wanted = [
        Sysctl(f"net/ipv{family.value}/neigh/{device}/proxy_delay", "0") for family in sorted(view.families)
    ]
    wanted.append(Sysctl(f"net/ipv4/conf/{device}/rp_filter", "0"))
    return wanted


def _node_sysctls(view: NodeView) -> list[Sysctl]:
    wanted = [Sysctl("net/ipv4/ip_forward", "1"), Sysctl("net/ipv4/conf/all/rp_filter", "0")]
    if Family.V6 in view.families:
        if view.nic is not None and view.nic.accept_ra:
            wanted.append(Sysctl(f"net/ipv6/conf/{view.nic.name}/accept_ra", "2"))
        wanted.append(Sysctl("net/ipv6/conf/all/forwarding", "1"))
        # Not the device's own switch: that one leaves unicast probes (neighbour unreachability detection, RFC
        # 4861 7.3) to be forwarded to the pod, which must ignore them, so peers would lose the pod every minute.
        wanted.append(Sysctl("net/ipv6/conf/all/proxy_ndp", "1"))
    return wanted
