"""A node's view of the cluster: the API objects that concern it, parsed once, the bad ones set aside.

The promise: a plan never meets text that could be malformed. Whatever cannot be used becomes a
:class:`Problem` that names the object and the next step, and the rest goes on (the original aborted the
whole pass at the first bad subnet).
"""

from ipaddress import ip_address, ip_network
from typing import NamedTuple

from msgspec import Struct

from hybridnet.model.address import Family, IPAddress, IPInterface, IPNetwork, family_of
from hybridnet.model.network import Network, NetworkMode, NetworkType, Subnet


class Nic(Struct, frozen=True):
    """A network device of the node as it is now."""

    name: str
    mtu: int
    addresses: tuple[IPInterface, ...] = ()
    accept_ra: int = 0
    """net.ipv6.conf.NAME.accept_ra: 1 stops working once the node forwards, 2 does not."""


class Vtep(Struct, frozen=True):
    """A tunnel endpoint: a node as its peers reach it."""

    node: str
    address: IPAddress
    mac: str
    local_addresses: tuple[IPAddress, ...]


class Problem(NamedTuple):
    """Something that an operator has to mend."""

    kind: str
    name: str
    reason: str
    message: str


class SubnetView(Struct, frozen=True):
    """A subnet with everything parsed and inherited."""

    name: str
    network: str
    type: NetworkType
    mode: NetworkMode
    created: str
    cidr: IPNetwork
    first: IPAddress
    last: IPAddress
    excluded: frozenset[IPAddress]
    gateway: IPAddress | None
    net_id: int | None
    auto_nat: bool
    bridge: str
    """Named bridge of a Bridge network; empty: the node's NIC."""
    attached: bool
    """Whether this node belongs to the network."""

    @property
    def family(self) -> Family:
        """IP version."""
        return family_of(self.cidr)


class NodeView(Struct, frozen=True):
    """What a plan is made of."""

    name: str
    families: frozenset[Family]
    """Families that this node's kernel has."""
    nic: Nic | None
    """The device that underlay frames and tunnels leave by."""
    bridges: tuple[Nic, ...]
    subnets: tuple[SubnetView, ...]
    vni: int | None
    """VNI of the cluster's Overlay network, if there is one."""
    vtep: Vtep | None
    """This node's own tunnel endpoint."""
    problems: tuple[Problem, ...] = ()

    def device(self, name: str) -> Nic | None:
        """The device of that name; an empty name means the node's NIC."""
        if not name:
            return self.nic
        return next((b for b in self.bridges if b.name == name), None)

    def source(self, family: Family) -> IPAddress | None:
        """The node's own address of a family: the source of what the node itself sends to pods."""
        if self.vtep is None:
            addresses = [i.ip for i in self.nic.addresses] if self.nic else []
        else:
            addresses = [self.vtep.address, *self.vtep.local_addresses]
        return next((a for a in addresses if family_of(a) is family), None)


def parse_subnet(
    subnet: Subnet, network: Network | None, node_labels: dict[str, str]
) -> SubnetView | Problem:
    """One subnet as a plan needs it, or what is wrong with it."""
    if network is None:
        return Problem(
            "Subnet",
            subnet.name,
            "NetworkNotFound",
            f"subnet {subnet.name} belongs to network {subnet.spec.network}, which does not exist: create it",
        )
    try:
        return _parse(subnet, network, node_labels)
    except ValueError as error:
        return Problem("Subnet", subnet.name, "Invalid", f"subnet {subnet.name} is not usable: {error}")


def _parse(subnet: Subnet, network: Network, node_labels: dict[str, str]) -> SubnetView:
    r = subnet.spec.range
    cidr = ip_network(r.cidr)
    first = ip_address(r.start) if r.start else cidr.network_address + 1
    last_default = cidr.broadcast_address - (1 if family_of(cidr) is Family.V4 else 0)
    last = ip_address(r.end) if r.end else last_default
    gateway = ip_address(r.gateway) if r.gateway else None
    excluded = frozenset(ip_address(text) for text in r.exclude_ips)
    for address in (first, last, *([gateway] if gateway else []), *excluded):
        if address not in cidr:
            raise ValueError(f"{address} is not in {cidr}")
    mode = network.mode
    config = network.spec.config
    net_id = subnet.spec.net_id if subnet.spec.net_id is not None else network.spec.net_id
    return SubnetView(
        name=subnet.name,
        network=network.name,
        type=network.type,
        mode=mode,
        created=subnet.metadata.creation_timestamp or "",
        cidr=cidr,
        first=first,
        last=last,
        excluded=excluded,
        gateway=gateway,
        net_id=0 if net_id is None and mode is NetworkMode.BRIDGE else net_id,
        auto_nat=subnet.auto_nat_outgoing,
        bridge=config.bridge if config and mode is NetworkMode.BRIDGE else "",
        attached=network.selects(node_labels),
    )
