"""From what the API server and the kernel say to the node's view that plans are made of.

Observation only: functions here read typed objects and return values; nothing is written. The tunnel endpoint
is chosen from the addresses of the Node object, never from what happens to be first on the NIC (the original
could take a pod's address for the node's).
"""

from collections.abc import Iterable
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from hybridnet.model.address import Family, IPAddress
from hybridnet.model.core import Node
from hybridnet.model.instance import NodeInfo, VTEPInfo
from hybridnet.model.network import Network, NetworkType, Subnet
from hybridnet.plan.view import Nic, NodeView, Problem, SubnetView, Vtep, parse_subnet


def vtep_mac(node_uid: str) -> str:
    """The MAC of a node's tunnel endpoint: locally administered, from the Node's UID.

    Stable over restarts and NIC changes, and different on cloned machines and in meshed clusters that use the
    same node names (the original took the NIC's).
    """
    digest = sha256(f"hybridnet vtep {node_uid}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def node_addresses(node: Node) -> tuple[IPAddress, ...]:
    """The internal addresses of a Node object, in its order; what is no address is passed over."""
    found = []
    for entry in node.status.addresses:
        if entry.type == "InternalIP":
            try:
                found.append(ip_address(entry.address))
            except ValueError:
                continue
    return tuple(found)


def choose_vtep(node: Node, nic: Nic | None) -> Vtep | None:
    """This node's tunnel endpoint: its first internal address (IPv4 first) that the NIC really has."""
    if nic is None:
        return None
    held = {interface.ip for interface in nic.addresses}
    internal = node_addresses(node)
    candidates = sorted((a for a in internal if a in held), key=lambda a: a.version)
    if not candidates:
        return None
    return Vtep(node.name, candidates[0], vtep_mac(node.metadata.uid), tuple(sorted(internal, key=_order)))


def vtep_info(vtep: Vtep) -> VTEPInfo:
    """The endpoint as it is published in NodeInfo."""
    return VTEPInfo(
        ip=str(vtep.address),
        mac=vtep.mac,
        local_ips=tuple(sorted(str(a) for a in {vtep.address, *vtep.local_addresses})),
    )


def peer_vtep(info: NodeInfo) -> Vtep | None:
    """Another node's endpoint from its NodeInfo; None when it has none or it is not usable."""
    spec = info.spec.vtep_info
    if spec is None or not spec.ip or not spec.mac:
        return None
    try:
        address = ip_address(spec.ip)
        local = tuple(sorted((ip_address(a) for a in spec.local_ips), key=_order))
        mac = bytes(int(part, 16) for part in spec.mac.split(":"))
    except ValueError:
        return None
    if len(mac) != 6 or mac[0] & 1:
        return None
    return Vtep(info.name, address, ":".join(f"{b:02x}" for b in mac), local)


def host_families() -> frozenset[Family]:
    """Families of the network namespace that we run in (a kernel may have IPv6 switched off)."""
    v6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    try:
        disabled = v6.read_text().strip() != "0"
    except FileNotFoundError:
        disabled = True
    return frozenset({Family.V4}) if disabled else frozenset(Family)


def observe_node(
    node: Node,
    networks: Iterable[Network],
    subnets: Iterable[Subnet],
    nic: Nic | None,
    bridges: tuple[Nic, ...],
    families: frozenset[Family],
) -> NodeView:
    """The node's view. Whatever is wrong with an object is a problem of that object."""
    by_name: dict[str, Network] = {}
    problems: list[Problem] = []
    for network in networks:
        try:
            _ = network.mode
            by_name[network.name] = network
        except ValueError as error:
            problems.append(
                Problem("Network", network.name, "Invalid", f"network {network.name} is not usable: {error}")
            )
    parsed: list[SubnetView] = []
    for subnet in sorted(subnets, key=lambda s: s.name):
        view = parse_subnet(subnet, by_name.get(subnet.spec.network), node.metadata.labels)
        if isinstance(view, SubnetView):
            parsed.append(view)
        else:
            problems.append(view)
    overlays = sorted(n.name for n in by_name.values() if n.type is NetworkType.OVERLAY)
    vni = by_name[overlays[0]].spec.net_id if overlays else None
    return NodeView(
        name=node.name,
        families=families,
        nic=nic,
        bridges=bridges,
        subnets=tuple(parsed),
        vni=vni,
        vtep=choose_vtep(node, nic) if vni is not None else None,
        problems=tuple(problems),
    )


def _order(address: IPAddress) -> tuple[int, int]:
    return address.version, int(address)
