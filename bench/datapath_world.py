"""Two pairs of nodes on one switch: one wired by our agent's own code, one by hand, each with two pods a node.

Ours: the agent's wiring and data plane on a view of the cluster made by hand. By hand: what a network engineer
would type for the same pods: routed veth pairs, and for the overlay a VXLAN device with static entries; no packet
filter, no rules, no connection tracking. Addresses, MTUs and the number of devices on a path are the same.
"""

import asyncio
from ipaddress import ip_address, ip_interface, ip_network

from msgspec import Struct

import wires
from hybridnet.agent import wiring
from hybridnet.agent.dataplane import Dataplane
from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.processes import run
from hybridnet.model.address import Family, IPAddress
from hybridnet.model.network import NetworkMode, NetworkType
from hybridnet.plan.endpoint import Endpoint, PodAddress
from hybridnet.plan.layout import POD_GATEWAY_MAC, VXLAN_PORT
from hybridnet.plan.view import Nic, NodeView, SubnetView, Vtep

OURS = ("ours1", "ours2")
BASELINE = ("base1", "base2")
NODES = (*OURS, *BASELINE)
NETWORKS = ("overlay", "underlay")
MTU = 1500
VNI = 4
RANGES = {
    "overlay": {Family.V4: "100.64.0.0/16", Family.V6: "fd64::/112"},
    "underlay": {Family.V4: "172.31.1.0/24", Family.V6: "fd31:1::/64"},
}
GATEWAY = {Family.V4: "172.31.1.1", Family.V6: "fd31:1::1"}
HAND_MADE_VXLAN = "vx0"


class PodSite(Struct, frozen=True):
    """A pod of one side."""

    node: str
    network: str

    @property
    def role(self) -> str:
        """Its namespace."""
        return f"{self.node}-{self.network}"

    @property
    def mtu(self) -> int:
        """Of its interface."""
        return MTU - 50 if self.network == "overlay" else MTU

    def address(self, family: Family) -> str:
        """Its address; the pods of different sides have different ones."""
        return str(ip_network(RANGES[self.network][family])[20 + NODES.index(self.node)])


def sites(nodes: tuple[str, str], network: str) -> tuple[PodSite, PodSite]:
    """The two pods between which traffic runs."""
    return PodSite(nodes[0], network), PodSite(nodes[1], network)


def build() -> None:
    """Wire all nodes; their namespaces are there."""
    for node in NODES:
        for network in NETWORKS:
            wires.make(PodSite(node, network).role)
    for node, peer in ((OURS[0], OURS[1]), (OURS[1], OURS[0])):
        with Namespace.open(wires.path_of(node)) as namespace:
            namespace.run(lambda n=node, p=peer: asyncio.run(_serve(n, p)))  # type: ignore[misc]
    for node, peer in ((BASELINE[0], BASELINE[1]), (BASELINE[1], BASELINE[0])):
        _by_hand(node, peer)


async def _serve(node: str, peer: str) -> None:
    """Make the kernel of *node* as the agent would; what it has written stays."""
    endpoints = [_endpoint(PodSite(node, network)) for network in NETWORKS]
    dataplane = Dataplane(node, lambda e: frozenset(str(a.address.ip) for a in e.addresses))
    await dataplane.start()
    dataplane.learn_peer(_vtep(peer))
    for endpoint in endpoints:
        wiring.wire(endpoint)
        dataplane.learn_endpoint(endpoint)
    await dataplane.set_node(_view(node))
    for network in NETWORKS:
        for family in Family:
            if network == "overlay":
                dataplane.answer(ip_address(PodSite(peer, network).address(family)), _vtep(peer).mac)
    dataplane.close()


def _view(node: str) -> NodeView:
    addresses = tuple(map(ip_interface, _node_interfaces(node)))
    return NodeView(
        name=node,
        families=frozenset(Family),
        nic=Nic("eth0", MTU, addresses),
        bridges=(),
        subnets=tuple(_subnet(network, family) for network in NETWORKS for family in Family),
        vni=VNI,
        vtep=_vtep(node),
    )


def _subnet(network: str, family: Family) -> SubnetView:
    cidr = ip_network(RANGES[network][family])
    overlay = network == "overlay"
    return SubnetView(
        name=f"{network}-v{int(family)}",
        network=network,
        type=NetworkType.OVERLAY if overlay else NetworkType.UNDERLAY,
        mode=NetworkMode.VXLAN if overlay else NetworkMode.VLAN,
        created="",
        cidr=cidr,
        first=cidr[1],
        last=cidr[-2],
        excluded=frozenset(),
        gateway=None if overlay else ip_address(GATEWAY[family]),
        net_id=VNI if overlay else 0,
        auto_nat=True,
        bridge="",
        attached=True,
    )


def _vtep(node: str) -> Vtep:
    addresses: tuple[IPAddress, ...] = tuple(ip_interface(a).ip for a in _node_interfaces(node))
    return Vtep(node, addresses[0], f"02:00:00:00:00:{NODES.index(node):02x}", addresses)


def _endpoint(site: PodSite) -> Endpoint:
    lengths = {family: RANGES[site.network][family].split("/")[1] for family in Family}
    return Endpoint(
        container=site.role,
        interface="eth0",
        device=f"hybr{site.network}",
        namespace="bench",
        pod=site.role,
        uid=site.role,
        mac=_pod_mac(site),
        mtu=site.mtu,
        netns=str(wires.path_of(site.role)),
        addresses=tuple(
            PodAddress(ip_interface(f"{site.address(f)}/{lengths[f]}"), f"{site.network}-v{int(f)}")
            for f in Family
        ),
    )


def _pod_mac(site: PodSite) -> str:
    return f"02:12:34:00:{NETWORKS.index(site.network):02x}:{NODES.index(site.node):02x}"


def _node_interfaces(node: str) -> tuple[str, str]:
    return wires.addresses_of(NODES.index(node))


def _by_hand(node: str, peer: str) -> None:
    run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"], wires.inside(node))
    run(["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"], wires.inside(node))
    local, remote = _node_interfaces(node)[0].split("/")[0], _node_interfaces(peer)[0].split("/")[0]
    kind = f"type vxlan id {VNI} dev eth0 local {local} dstport {VXLAN_PORT} nolearning"
    commands = [
        f"link add {HAND_MADE_VXLAN} mtu {MTU - 50} address {_vtep(node).mac} {kind}",
        f"link set {HAND_MADE_VXLAN} up",
    ]
    for network in NETWORKS:
        commands += _attach_by_hand(PodSite(node, network))
    for family in Family:
        other = PodSite(peer, "overlay").address(family)
        commands += [
            f"route add {other} dev {HAND_MADE_VXLAN}",
            f"neighbour add {other} lladdr {_vtep(peer).mac} dev {HAND_MADE_VXLAN} nud permanent",
        ]
        via = _node_interfaces(peer)[list(Family).index(family)].split("/")[0]
        commands.append(f"route add {PodSite(peer, 'underlay').address(family)} via {via}")
    wires.ip(node, commands)
    entry = f"fdb append {_vtep(peer).mac} dev {HAND_MADE_VXLAN} dst {remote}".split()
    run(["bridge", *entry], wires.inside(node))


def _attach_by_hand(site: PodSite) -> list[str]:
    """A routed veth pair, as ours: the pod knows its gateway by a permanent entry. The node's part is returned."""
    device, pod = f"pod-{site.network}", wires.name_of(site.role)
    peer = f"peer name eth0 address {_pod_mac(site)} mtu {site.mtu} netns {pod}"
    made = f"link add {device} address {POD_GATEWAY_MAC} mtu {site.mtu} type veth {peer}"
    wires.ip(site.node, [made, f"link set {device} up"])
    inner = ["link set eth0 up"]
    for family, gateway in ((Family.V4, "169.254.1.1"), (Family.V6, "fe80::1")):
        length = 32 if family is Family.V4 else 128
        inner += [
            f"address add {site.address(family)}/{length} dev eth0 {'nodad' if family is Family.V6 else ''}",
            f"neighbour add {gateway} lladdr {POD_GATEWAY_MAC} dev eth0 nud permanent",
            f"route add default via {gateway} dev eth0 {'onlink' if family is Family.V4 else ''}",
        ]
    wires.ip(site.role, inner)
    outer = []
    for family in Family:
        outer += [
            f"route add {site.address(family)} dev {device}",
            f"neighbour add {site.address(family)} lladdr {_pod_mac(site)} dev {device} nud permanent",
        ]
    return outer
