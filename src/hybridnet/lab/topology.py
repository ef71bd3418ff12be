"""What a lab looks like: names, addresses, cables. Pure values; nothing here touches the machine.

                         +-------- root namespace of the machine (kubectl)
                         |  veth, a /30 of 198.18.0.0/16 (RFC 2544, never routed)
    [node1] [node2] ... [cp]           [external]
       |       |         |                  |  172.31.2.0/24   fd31:2::/64
    ===+=======+=========+======[router]----+
       one switch: nodes 172.31.0.0/24  fd31::/64, underlay pods 172.31.1.0/24  fd31:1::/64, both untagged

Addresses are the same in every lab, because every lab has namespaces of its own; only the link to the root
namespace must differ, so it takes a free slot. Names: ``hn-LAB-ROLE`` for namespaces, ``hn-LAB`` for the rest. A
lab's name has no hyphen, so that no lab's names begin like another's.
"""

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Network,
    ip_interface,
    ip_network,
)
from pathlib import Path

from msgspec import Struct

from hybridnet.kernel.namespace import RUN_NETNS
from hybridnet.lab.errors import InvalidName
from hybridnet.model.address import IPAddress, IPInterface, IPNetwork

ROOT = Path("/var/lib/hybridnet-lab")
"""Every lab has a folder below."""

SEGMENT = (ip_network("172.31.0.0/24"), ip_network("fd31::/64"))
UNDERLAY = (ip_network("172.31.1.0/24"), ip_network("fd31:1::/64"))
OUTSIDE = (ip_network("172.31.2.0/24"), ip_network("fd31:2::/64"))
OVERLAY = (ip_network("100.64.0.0/16"), ip_network("fd64::/112"))
SERVICES = (ip_network("10.96.0.0/16"), ip_network("fd96::/112"))
OVERLAY_ID = 4
VXLAN_PORT = 8472
MANAGEMENT = IPv4Network("198.18.0.0/16")
SLOTS = 256
MAX_NODES = 200

ROUTER, CONTROL_PLANE, EXTERNAL, FIRST_NODE = 1, 2, 2, 11
"""Host parts of addresses."""

_NAME = re.compile(r"[a-z][a-z0-9]{0,9}")


class Host(Struct, frozen=True):
    """A namespace with one NIC ``eth0``."""

    role: str
    addresses: tuple[IPInterface, ...]
    gateways: tuple[IPAddress, ...]
    """Default routes, one of each family."""


class Topology(Struct, frozen=True):
    """The names and addresses of one lab."""

    lab: str
    nodes: int
    slot: int
    """0..255: which /30 of 198.18.0.0/16 links it to the root namespace."""

    @property
    def prefix(self) -> str:
        """What the names of everything in the kernel begin with; also the root namespace's veth."""
        return f"hn-{self.lab}"

    @property
    def node_names(self) -> tuple[str, ...]:
        """``node1``, ``node2``, ..."""
        return tuple(f"node{number}" for number in range(1, self.nodes + 1))

    @property
    def roles(self) -> tuple[str, ...]:
        """Every namespace of the lab, by role."""
        return ("switch", "router", "external", "cp", *self.node_names)

    def namespace(self, role: str) -> str:
        """Name of a namespace, for ``ip netns exec`` too."""
        return f"{self.prefix}-{role}"

    def namespace_path(self, role: str) -> Path:
        """Path of a namespace."""
        return RUN_NETNS / self.namespace(role)

    def node(self, name: str) -> Host:
        """A node by name. ValueError when the lab has no such node."""
        number = self.node_names.index(name)
        return _on_segment(name, FIRST_NODE + number)

    @property
    def control_plane(self) -> Host:
        """The namespace of etcd, the API server and our manager."""
        return _on_segment("cp", CONTROL_PLANE)

    @property
    def external(self) -> Host:
        """A machine that knows nothing of the cluster."""
        gateways = tuple(network[ROUTER] for network in OUTSIDE)
        return Host("external", _interfaces(OUTSIDE, EXTERNAL), gateways)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All but switch and router."""
        return (self.control_plane, self.external, *map(self.node, self.node_names))

    @property
    def management(self) -> tuple[IPv4Interface, IPv4Interface]:
        """Addresses of the veth between the root namespace and the control plane, in this order."""
        base = int(MANAGEMENT.network_address) + 4 * self.slot
        return IPv4Interface((base + 1, 30)), IPv4Interface((base + 2, 30))

    def pod_ranges(self, name: str) -> tuple[IPv4Network, IPv6Network]:
        """The node's own pod subnets with the bridge plugin: 10.244.N.0/24 and fd44:N::/64."""
        number = self.node_names.index(name) + 1
        return IPv4Network(f"10.244.{number}.0/24"), IPv6Network(f"fd44:{number:x}::/64")


def check_name(name: str) -> str:
    """*name* when a lab can be called that. InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(f"a lab cannot be called {name!r}: use 1 to 10 lower-case letters and digits")
    return name


def router_interfaces() -> tuple[tuple[IPInterface, ...], tuple[IPInterface, ...]]:
    """Addresses of the router: on the switch, and towards the external host."""
    inner = (*_interfaces(SEGMENT, ROUTER), *_interfaces(UNDERLAY, ROUTER))
    return inner, _interfaces(OUTSIDE, ROUTER)


def free_slot(taken: set[int], used: list[IPv4Network]) -> int:
    """The first slot that no other lab has and whose addresses do not touch *used*. InvalidName when none is.

    *used*: networks that the machine has addresses in or routes to.
    """
    for slot in range(SLOTS):
        network = Topology("", 0, slot).management[0].network
        if slot not in taken and not any(network.overlaps(each) for each in used):
            return slot
    raise InvalidName(f"no /30 of {MANAGEMENT} is free for another lab: end one with 'hybridnet lab down'")


def _on_segment(role: str, number: int) -> Host:
    return Host(role, _interfaces(SEGMENT, number), tuple(network[ROUTER] for network in SEGMENT))


def _interfaces(networks: tuple[IPNetwork, ...], number: int) -> tuple[IPInterface, ...]:
    return tuple(
        ip_interface((network[_host_part(network, number)], network.prefixlen)) for network in networks
    )


def _host_part(network: IPNetwork, number: int) -> int:
    """The same digits in both families: 172.31.0.11 is fd31::11."""
    return number if network.version == 4 else int(str(number), 16)


def addresses_of(interfaces: tuple[IPInterface, ...]) -> tuple[IPAddress, ...]:
    """The addresses without their prefix lengths."""
    return tuple(each.ip for each in interfaces)


def ipv4_of(addresses: tuple[IPAddress, ...]) -> IPv4Address:
    """The IPv4 one. StopIteration cannot happen: everything here is dual stack."""
    return next(each for each in addresses if isinstance(each, IPv4Address))
