"""The kernel objects that a node must have, as values: what plans return and appliers compare.

Each struct is one object of the kernel. ``key`` is its identity (what the kernel allows only once), the other
fields are its value; two states differ in an object when the key is missing on one side or the values are not
equal. Devices are named, never numbered: a plan is made without looking at the node. Every object of ours
carries :data:`PROTOCOL`; what does not carry it is never touched.
"""

from enum import IntEnum, StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from msgspec import Struct

from hybridnet.model.address import Family, IPAddress, IPInterface, IPNetwork, family_of

PROTOCOL = 104
"""rtm_protocol, FRA_PROTOCOL, NDA_PROTOCOL and IFA_PROTO of everything that we write ("h"; unassigned in
rtnetlink.h, where 99 belongs to Open/R)."""


class Scope(IntEnum):
    """Route and address scopes (rtnetlink.h)."""

    UNIVERSE = 0
    LINK = 253
    HOST = 254


class RouteType(StrEnum):
    """The route types that plans use."""

    UNICAST = "unicast"
    THROW = "throw"
    UNREACHABLE = "unreachable"
    BLACKHOLE = "blackhole"


class Route(Struct, frozen=True):
    """One route. THROW, UNREACHABLE and BLACKHOLE have no device."""

    table: int
    destination: IPNetwork
    device: str = ""
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    """Preferred source address (RTA_PREFSRC)."""
    type: RouteType = RouteType.UNICAST
    onlink: bool = False
    """The gateway is on the device's segment although no route says so (RTNH_F_ONLINK)."""

    @property
    def family(self) -> Family:
        """IP version."""
        return family_of(self.destination)

    @property
    def key(self) -> tuple[int, IPNetwork]:
        """A table holds one route of ours to one destination."""
        return self.table, self.destination


class RuleAction(StrEnum):
    """What a matching rule does."""

    LOOKUP = "lookup"
    GOTO = "goto"
    NOP = "nop"


class Rule(Struct, frozen=True):
    """One policy rule. *target* is a table (LOOKUP) or a priority (GOTO)."""

    family: Family
    priority: int
    action: RuleAction
    target: int = 0
    mark: int = 0
    mask: int = 0
    """0: the rule does not look at the mark."""

    @property
    def key(self) -> tuple[Family, int]:
        """We never use one priority twice."""
        return self.family, self.priority


class ProxyNeighbour(Struct, frozen=True):
    """An address that the node answers ARP or NDP for on *device* (NTF_PROXY)."""

    device: str
    address: IPAddress

    @property
    def key(self) -> tuple[str, IPAddress]:
        """Device and address."""
        return self.device, self.address


class FdbEntry(Struct, frozen=True):
    """VXLAN forwarding: frames to *mac* go to VTEP *destination*.

    A unicast *mac* has one destination (replaced when it changes); a multicast one has many, and each is an
    object of its own.
    """

    device: str
    mac: str
    destination: IPAddress

    @property
    def multicast(self) -> bool:
        """Whether the group bit of *mac* is set."""
        return bool(int(self.mac[:2], 16) & 1)

    @property
    def key(self) -> tuple[str, str, IPAddress | None]:
        """Device and MAC; for a multicast MAC the destination as well."""
        return self.device, self.mac, self.destination if self.multicast else None


class VxlanLink(Struct, frozen=True):
    """The tunnel device. Every field but *mtu* and *mac* is fixed at creation: a change recreates it."""

    name: str
    vni: int
    parent: str
    local: IPAddress
    port: int
    mac: str
    mtu: int

    @property
    def key(self) -> str:
        """The name."""
        return self.name


class LinkAddress(Struct, frozen=True):
    """An address of ours on a device, without a prefix route (IFA_F_NOPREFIXROUTE) and without DAD."""

    device: str
    address: IPInterface
    scope: Scope = Scope.UNIVERSE

    @property
    def key(self) -> tuple[str, IPInterface]:
        """Device and address."""
        return self.device, self.address


class Sysctl(Struct, frozen=True):
    """``net.*`` in the form of a path below /proc/sys: ``net/ipv4/conf/eth0/rp_filter``."""

    path: str
    value: str
    optional: bool = False
    """Absence is no error: the knob does not exist in a child namespace, or in some kernels."""

    @property
    def key(self) -> str:
        """The path."""
        return self.path


class NftSet(Struct, frozen=True):
    """A named set or map of our nftables table, in nft's text syntax."""

    name: str
    declaration: str
    """Body of the declaration: ``type ipv4_addr : mark;``."""
    elements: tuple[tuple[str, str], ...] | None = None
    """Key and data (empty for a set) of each element; None: kept element by element, by scopes."""

    @property
    def key(self) -> str:
        """The name."""
        return self.name


class NftTable(Struct, frozen=True):
    """Our one nftables table: chains as text, sets beside them."""

    family: str
    name: str
    chains: str
    """``chain NAME { ... }`` definitions, in nft's syntax."""
    sets: tuple[NftSet, ...] = ()


KernelObject: TypeAlias = Route | Rule | ProxyNeighbour | FdbEntry | VxlanLink | LinkAddress | Sysctl

DEFAULT_ROUTE: dict[Family, IPNetwork] = {
    Family.V4: IPv4Network("0.0.0.0/0"),
    Family.V6: IPv6Network("::/0"),
}
