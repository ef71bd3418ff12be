"""Network and Subnet: where addresses come from and how their packets travel.

Field names and meanings are those of the original project (its manifests apply unchanged); ``mode: Bridge``,
``config.bridge`` and the conditions are additions. Whatever one object can show to be wrong is refused by the
CRD schema itself (CEL), so it holds without a webhook; what needs a second object is judged by the manager,
which puts a condition on the object.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import field

from hybridnet.model.meta import BY_TYPE, ApiStruct, Condition, KubeObject, doc


class NetworkType(StrEnum):
    """How the outside sees a network's pods."""

    UNDERLAY = "Underlay"
    OVERLAY = "Overlay"
    GLOBAL_BGP = "GlobalBGP"


class NetworkMode(StrEnum):
    """How frames of a network leave the node."""

    VLAN = "VLAN"
    BRIDGE = "Bridge"
    BGP = "BGP"
    VXLAN = "VXLAN"
    GLOBAL_BGP = "GlobalBGP"


DEFAULT_MODE = {
    NetworkType.UNDERLAY: NetworkMode.VLAN,
    NetworkType.OVERLAY: NetworkMode.VXLAN,
    NetworkType.GLOBAL_BGP: NetworkMode.GLOBAL_BGP,
}

MAX_TEXT = 49
"""Longest text of an address or network. The API server bounds the cost of its rules by these limits."""
MAX_PEERS = 256
MAX_RESERVED = 4096
MAX_EXCLUDED = 1024

AddressText = Annotated[str, doc("An address.", maxLength=MAX_TEXT)]


class BGPPeer(ApiStruct, frozen=True, kw_only=True):
    """A router that the nodes of a BGP network speak with."""

    asn: Annotated[int, doc("AS number of the peer.", format="int64", minimum=1, maximum=4294967295)]
    address: Annotated[str, doc("Address of the peer, IPv4 or IPv6.", maxLength=MAX_TEXT)]
    graceful_restart_seconds: Annotated[
        int, doc("How long the peer keeps our routes while we restart; 0 means 300.", minimum=0)
    ] = 0
    password: Annotated[str, doc("TCP-MD5 password (RFC 2385).", maxLength=80)] = ""
    does_not_route_traffic: Annotated[bool, doc("The peer is never used as a next hop.")] = False
    allow_not_established: Annotated[
        bool, doc("Pods may start although the session with this peer is down.")
    ] = False


class NetworkConfig(ApiStruct, frozen=True, kw_only=True):
    """Settings that only some modes have."""

    bgp_peers: Annotated[tuple[BGPPeer, ...], doc("Peers of a BGP network.", maxItems=MAX_PEERS)] = field(
        default=(), name="bgpPeers"
    )
    bridge: Annotated[
        str,
        doc(
            "An existing Linux bridge on every node of a Bridge network; empty means the untagged "
            "segment of the node's NIC.",
            maxLength=15,
        ),
    ] = ""


class NetworkSpec(ApiStruct, frozen=True, kw_only=True):
    """What the operator wants of a network."""

    node_selector: Annotated[
        dict[str, str],
        doc("Labels of the nodes that belong to an Underlay network; empty for the other types."),
    ] = field(default_factory=dict)
    net_id: Annotated[
        int | None,
        doc(
            "VLAN id (0 is untagged), VXLAN network identifier, or local AS number, by mode.",
            format="int64",
        ),
    ] = field(default=None, name="netID")
    type: Annotated[str, doc("Underlay (default), Overlay or GlobalBGP.", enum=[*NetworkType, ""])] = ""
    mode: Annotated[
        str,
        doc(
            "VLAN (default of Underlay), Bridge or BGP; VXLAN for Overlay; GlobalBGP.",
            enum=[*NetworkMode, ""],
        ),
    ] = ""
    config: Annotated[NetworkConfig | None, doc("Settings of the mode.")] = None


class Statistics(ApiStruct, frozen=True, kw_only=True):
    """Counts of addresses."""

    total: Annotated[int, doc("Addresses that can be given, reserved ones aside.", format="int64")] = 0
    used: Annotated[int, doc("Addresses given.", format="int64")] = 0
    available: Annotated[int, doc("Addresses free.", format="int64")] = 0


class NetworkStatus(ApiStruct, frozen=True, kw_only=True):
    """What the manager found."""

    last_allocated_subnet: Annotated[str, doc("IPv4 subnet that allocation is at.")] = ""
    last_allocated_ipv6_subnet: Annotated[str, doc("IPv6 subnet that allocation is at.")] = field(
        default="", name="lastAllocatedIPv6Subnet"
    )
    subnet_list: Annotated[tuple[str, ...], doc("Subnets of this network, sorted.")] = ()
    node_list: Annotated[tuple[str, ...], doc("Nodes of this network, sorted.")] = ()
    statistics: Annotated[Statistics | None, doc("IPv4 addresses.")] = None
    ipv6_statistics: Annotated[Statistics | None, doc("IPv6 addresses.")] = field(
        default=None, name="ipv6Statistics"
    )
    dual_stack_statistics: Annotated[Statistics | None, doc("Pairs: only available is meaningful.")] = None
    conditions: Annotated[tuple[Condition, ...], doc("Whether the network can serve pods.", **BY_TYPE)] = ()


class Network(KubeObject, frozen=True, kw_only=True):
    """A set of subnets and nodes with one way for packets to travel."""

    spec: NetworkSpec = field(default_factory=NetworkSpec)
    status: NetworkStatus | None = None

    @property
    def type(self) -> NetworkType:
        """The effective type. ValueError when the object names an unknown one."""
        return NetworkType(self.spec.type or NetworkType.UNDERLAY)

    @property
    def mode(self) -> NetworkMode:
        """The effective mode. ValueError when the object names an unknown one."""
        return NetworkMode(self.spec.mode or DEFAULT_MODE[self.type])

    def selects(self, node_labels: dict[str, str]) -> bool:
        """Whether a node with these labels belongs to the network (GlobalBGP is decided elsewhere)."""
        if self.type is NetworkType.OVERLAY:
            return True
        selector = self.spec.node_selector
        return bool(selector) and all(node_labels.get(k) == v for k, v in selector.items())


class AddressRange(ApiStruct, frozen=True, kw_only=True):
    """The addresses of a subnet: a CIDR, narrowed by start, end and exclusions."""

    version: Annotated[str, doc('IP version: "4" or "6".', enum=["4", "6"])]
    cidr: Annotated[str, doc("Network address and prefix length, host bits zero.", maxLength=MAX_TEXT)]
    start: Annotated[
        str, doc("First usable address; default: the one after the network address.", maxLength=MAX_TEXT)
    ] = ""
    end: Annotated[
        str,
        doc(
            "Last usable address; default: before broadcast (IPv4), the very last (IPv6).", maxLength=MAX_TEXT
        ),
    ] = ""
    gateway: Annotated[str, doc("The router on the segment; never allocated.", maxLength=MAX_TEXT)] = ""
    reserved_ips: Annotated[
        tuple[AddressText, ...],
        doc("Never picked automatically, assignable by an address pool.", maxItems=MAX_RESERVED),
    ] = field(default=(), name="reservedIPs")
    exclude_ips: Annotated[
        tuple[AddressText, ...], doc("Not part of the subnet at all.", maxItems=MAX_EXCLUDED)
    ] = field(default=(), name="excludeIPs")


class SubnetConfig(ApiStruct, frozen=True, kw_only=True):
    """Switches of a subnet."""

    auto_nat_outgoing: Annotated[
        bool | None,
        doc("Overlay only: pods reach the outside with the node's address. Default true."),
    ] = None
    private: Annotated[bool | None, doc("Only used by pods that name the subnet.")] = None
    gateway_type: Annotated[str, doc("Kept for manifests of the original; not used.")] = ""
    gateway_node: Annotated[str, doc("Kept for manifests of the original; not used.")] = ""
    allow_subnets: Annotated[tuple[str, ...], doc("Kept for manifests of the original; not used.")] = ()


class SubnetSpec(ApiStruct, frozen=True, kw_only=True):
    """What the operator wants of a subnet."""

    network: Annotated[str, doc("The Network that the subnet belongs to.", minLength=1)]
    range: Annotated[AddressRange, doc("The addresses.")]
    net_id: Annotated[int | None, doc("VLAN id; default: the network's.", minimum=0, maximum=4094)] = field(
        default=None, name="netID"
    )
    config: Annotated[SubnetConfig | None, doc("Switches.")] = None


class SubnetStatus(ApiStruct, frozen=True, kw_only=True):
    """What the manager found."""

    total: Annotated[int, doc("Addresses that can be given, reserved ones aside.", format="int64")] = 0
    used: Annotated[int, doc("Addresses given.", format="int64")] = 0
    available: Annotated[int, doc("Addresses free.", format="int64")] = 0
    last_allocated_ip: Annotated[str, doc("Where the allocation cursor stands.")] = field(
        default="", name="lastAllocatedIP"
    )
    conditions: Annotated[tuple[Condition, ...], doc("Whether the subnet can serve pods.", **BY_TYPE)] = ()


class Subnet(KubeObject, frozen=True, kw_only=True):
    """A range of addresses of one family."""

    spec: SubnetSpec
    status: SubnetStatus | None = None

    @property
    def auto_nat_outgoing(self) -> bool:
        """Effective ``config.autoNatOutgoing``."""
        config = self.spec.config
        return config is None or config.auto_nat_outgoing is not False

    @property
    def private(self) -> bool:
        """Effective ``config.private``."""
        return bool(self.spec.config and self.spec.config.private)
