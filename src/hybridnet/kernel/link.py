"""Devices: read, create, change, delete.

A veth pair is made in ONE request that also places and names the peer: creating it here and moving it there costs
23 ms (the move waits for an RCU grace period), this costs 0.2 ms. Deleting one takes 16 ms in the kernel: do it on
another thread with its own Rtnl, never in front of somebody who waits.

A device is given by its index or by its name; the kernel looks names up itself.
"""

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum

from msgspec import Struct

from hybridnet.kernel.errors import DeviceNotFound, ObjectNotFound
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Rtnl,
    attribute,
    nested,
    parse,
    read_mac,
    read_text,
    read_u32,
    text,
    u8,
    u32,
)
from hybridnet.kernel.netlink import (
    mac as mac_attribute,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

_IFINFO = struct.Struct("=BxHiII")
_EXT_MASK_SKIP_STATS = 8
_VETH_INFO_PEER = 1
_INET_CONF, _INET6_ADDR_GEN_MODE = 1, 8


class _A(IntEnum):
    """IFLA_* (linux/if_link.h)."""

    ADDRESS = 1
    IFNAME = 3
    MTU = 4
    LINK = 5
    MASTER = 10
    LINKINFO = 18
    IFALIAS = 20
    AF_SPEC = 26
    GROUP = 27
    NET_NS_FD = 28
    EXT_MASK = 29
    LINK_NETNSID = 37


class Devconf(IntEnum):
    """IPv4 per-device settings that travel in the link message (IPV4_DEVCONF_*, linux/ip.h)."""

    FORWARDING = 1
    PROXY_ARP = 3
    ACCEPT_REDIRECTS = 4
    SEND_REDIRECTS = 6
    RP_FILTER = 8
    LOG_MARTIANS = 11
    ARP_ANNOUNCE = 18
    ARP_IGNORE = 19
    ARP_NOTIFY = 22
    ACCEPT_LOCAL = 23
    SRC_VMARK = 24
    ROUTE_LOCALNET = 26


class AddressGeneration(IntEnum):
    """How the kernel makes the IPv6 link-local address (IN6_ADDR_GEN_MODE_*)."""

    EUI64 = 0
    NONE = 1
    STABLE_PRIVACY = 2
    RANDOM = 3


class Link(Struct, frozen=True, gc=False):
    """A device as the kernel reports it. Empty string or 0 where it has no such property."""

    index: int
    name: str
    kind: str
    """``veth``, ``vxlan``, ``bridge``, ...; empty for hardware and loopback."""
    mac: str
    mtu: int
    up: bool
    """Administratively up."""
    carrier: bool
    group: int
    alias: str
    master: int
    """Index of the bridge or bond that it belongs to."""
    parent: int
    """Index of the device below (vlan) or of the veth peer, in *parent_nsid*. A VXLAN's is in *data*."""
    parent_nsid: int
    """-1: in this namespace."""
    data: bytes = b""
    """IFLA_INFO_DATA: the kind's own attributes."""


def links(rtnl: Rtnl) -> list[Link]:
    """All devices of the namespace."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + u32(_A.EXT_MASK, _EXT_MASK_SKIP_STATS)
    return [parse_link(answer) for answer in rtnl.dump(RTM_GETLINK, body, "list devices")]


def get_link(rtnl: Rtnl, device: int | str) -> Link:
    """One device. DeviceNotFound."""
    body = _header(device) + u32(_A.EXT_MASK, _EXT_MASK_SKIP_STATS)
    return parse_link(rtnl.get(Message(RTM_GETLINK, 0, body, f"read device {device}")))


def parse_link(body: bytes) -> Link:
    """A Link from ifinfomsg and its attributes."""
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = parse(body, _IFINFO.size)
    info = parse(found.get(_A.LINKINFO, b""))
    return Link(
        index=index,
        name=read_text(found.get(_A.IFNAME, b"")),
        kind=read_text(info.get(1, b"")),
        mac=read_mac(found.get(_A.ADDRESS, b"")),
        mtu=read_u32(found.get(_A.MTU, b"")),
        up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        group=read_u32(found.get(_A.GROUP, b"")),
        alias=read_text(found.get(_A.IFALIAS, b"")),
        master=read_u32(found.get(_A.MASTER, b"")),
        parent=read_u32(found.get(_A.LINK, b"")),
        parent_nsid=struct.unpack("=i", found[_A.LINK_NETNSID])[0] if _A.LINK_NETNSID in found else -1,
        data=info.get(2, b""),
    )


def link_message(
    kind: str,
    name: str,
    *,
    mac: str = "",
    mtu: int = 0,
    group: int = 0,
    up: bool = False,
    parent: int = 0,
    data: Iterable[bytes] = (),
) -> Message:
    """The creation of a device. Empty and 0: the kernel chooses."""
    flags = IFF_UP if up else 0
    parts = [
        _IFINFO.pack(0, 0, 0, flags, flags),
        text(_A.IFNAME, name),
        mac_attribute(_A.ADDRESS, mac) if mac else b"",
        u32(_A.MTU, mtu) if mtu else b"",
        u32(_A.GROUP, group) if group else b"",
        u32(_A.LINK, parent) if parent else b"",
        nested(_A.LINKINFO, text(1, kind), nested(2, *data)),
    ]
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, b"".join(parts), f"create {kind} device {name}")


def create_veth(
    rtnl: Rtnl,
    name: str,
    *,
    peer_name: str,
    peer_namespace: Namespace,
    mac: str = "",
    peer_mac: str = "",
    mtu: int = 0,
    group: int = 0,
    up: bool = False,
    settings: Iterable[Message] = (),
) -> None:
    """A veth pair in one request: *name* here, *peer_name* in *peer_namespace*. *mtu* counts for both ends.

    The peer is down: the kernel cannot bring it up before both ends exist (ENOTCONN).
    *settings* (of :func:`change_message`, by name) go in the same system call. Raises AlreadyExists when
    either name is taken, and the first error of *settings*; then nothing of the pair is left.
    """
    peer = b"".join(
        (
            _IFINFO.pack(0, 0, 0, 0, 0),
            text(_A.IFNAME, peer_name),
            mac_attribute(_A.ADDRESS, peer_mac) if peer_mac else b"",
            u32(_A.MTU, mtu) if mtu else b"",
            u32(_A.NET_NS_FD, peer_namespace.fd),
        )
    )
    creation = link_message(
        "veth", name, mac=mac, mtu=mtu, group=group, up=up, data=(nested(_VETH_INFO_PEER, peer),)
    )
    errors = rtnl.batch((creation, *settings))
    if errors[0] is not None:
        raise errors[0]
    for error in errors[1:]:
        if error is not None:
            delete_link(rtnl, name)
            raise error


def create_bridge(rtnl: Rtnl, name: str, *, mac: str = "", mtu: int = 0, up: bool = True) -> None:
    """A bridge without spanning tree. AlreadyExists."""
    rtnl.request(link_message("bridge", name, mac=mac, mtu=mtu, up=up))


def change_message(
    device: int | str,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    group: int | None = None,
    alias: str | None = None,
    master: int | None = None,
    rename: str | None = None,
    devconf: Mapping[Devconf, int] | None = None,
    address_generation: AddressGeneration | None = None,
) -> Message:
    """A change of a device; what is None stays. *master* 0 takes it out of its bridge.

    *rename* needs *device* as an index.
    """
    flags = IFF_UP if up else 0
    parts = [
        _header(device, flags, 0 if up is None else IFF_UP),
        b"" if mtu is None else u32(_A.MTU, mtu),
        b"" if mac is None else mac_attribute(_A.ADDRESS, mac),
        b"" if group is None else u32(_A.GROUP, group),
        b"" if alias is None else attribute(_A.IFALIAS, alias.encode()),
        b"" if master is None else u32(_A.MASTER, master),
        b"" if rename is None else text(_A.IFNAME, rename),
        _af_spec(devconf or {}, address_generation),
    ]
    return Message(RTM_SETLINK, 0, b"".join(parts), f"change device {device}")


def change_link(rtnl: Rtnl, message: Message) -> None:
    """Send one :func:`change_message`. DeviceNotFound."""
    rtnl.request(message)


def set_up(rtnl: Rtnl, device: int | str, *, up: bool = True) -> None:
    """Bring a device up, or down. Going down drops its routes, and its global IPv6 addresses."""
    rtnl.request(change_message(device, up=up))


def set_mtu(rtnl: Rtnl, device: int | str, mtu: int) -> None:
    """Change the MTU in bytes."""
    rtnl.request(change_message(device, mtu=mtu))


def set_mac(rtnl: Rtnl, device: int | str, mac: str) -> None:
    """Change the MAC address."""
    rtnl.request(change_message(device, mac=mac))


def set_group(rtnl: Rtnl, device: int | str, group: int) -> None:
    """Put a device into an interface group (32-bit number)."""
    rtnl.request(change_message(device, group=group))


def set_master(rtnl: Rtnl, device: int | str, master: int) -> None:
    """Enslave a device to the bridge with index *master*; 0 frees it."""
    rtnl.request(change_message(device, master=master))


def set_devconf(
    rtnl: Rtnl,
    device: int | str,
    devconf: Mapping[Devconf, int],
    address_generation: AddressGeneration | None = None,
) -> None:
    """Set several IPv4 device settings, and IPv6 address generation, in one message."""
    rtnl.request(change_message(device, devconf=devconf, address_generation=address_generation))


def delete_link(rtnl: Rtnl, device: int | str) -> None:
    """Delete a device; no error when it is gone already. A veth's peer goes with it."""
    try:
        rtnl.request(Message(RTM_DELLINK, 0, _header(device), f"delete device {device}"))
    except (DeviceNotFound, ObjectNotFound):
        return


def _header(device: int | str, flags: int = 0, change: int = 0) -> bytes:
    index = device if isinstance(device, int) else 0
    header = _IFINFO.pack(0, 0, index, flags, change)
    return header if isinstance(device, int) else header + text(_A.IFNAME, device)


def _af_spec(devconf: Mapping[Devconf, int], generation: AddressGeneration | None) -> bytes:
    parts = []
    if devconf:
        conf = nested(_INET_CONF, *(u32(knob, value) for knob, value in devconf.items()))
        parts.append(nested(socket.AF_INET, conf))
    if generation is not None:
        parts.append(nested(socket.AF_INET6, u8(_INET6_ADDR_GEN_MODE, generation)))
    return nested(_A.AF_SPEC, *parts) if parts else b""


class Devices:
    """Names and indexes of the namespace's devices, read once and again whenever a name is not known.

    The cache can be stale: a device deleted and created again has a new index. Whoever gets DeviceNotFound
    for an index of ours calls :meth:`refresh` and tries once more.
    """

    def __init__(self, rtnl: Rtnl) -> None:
        self._rtnl = rtnl
        self._index: dict[str, int] = {}
        self._name: dict[int, str] = {}

    def index(self, name: str) -> int:
        """The index of device *name*. DeviceNotFound."""
        found = self._index.get(name)
        if found is None:
            found = self.learn(get_link(self._rtnl, name))
        return found

    def name(self, index: int) -> str:
        """The name of device *index* if known, else the empty string."""
        return self._name.get(index, "")

    def learn(self, link: Link) -> int:
        """Remember a device that was read."""
        self._index[link.name] = link.index
        self._name[link.index] = link.name
        return link.index

    def forget(self, name: str) -> None:
        """Drop a name, for example after its device was deleted."""
        self._name.pop(self._index.pop(name, 0), None)

    def refresh(self) -> list[Link]:
        """Read all devices anew."""
        found = links(self._rtnl)
        self._index = {link.name: link.index for link in found}
        self._name = {link.index: link.name for link in found}
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)
