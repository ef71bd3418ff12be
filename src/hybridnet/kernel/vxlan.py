"""The VXLAN device: create, compare, change in place where the kernel can, recreate where it cannot.

Learning, L2 and L3 miss notifications are off: forwarding entries and neighbours come from the agent alone, and a
frame to an unknown MAC goes nowhere (there is no default destination). Our device is marked by its alias, because
links have no protocol number.
"""

import struct
from collections.abc import Callable

from hybridnet.kernel.errors import AlreadyExists, DeviceNotFound, InvalidRequest
from hybridnet.kernel.link import Link, change_message, delete_link, get_link, link_message
from hybridnet.kernel.netlink import Rtnl, attribute, parse, read_address, read_u32, u8, u16be, u32
from hybridnet.model.address import Family, IPAddress, family_of
from hybridnet.plan.state import VxlanLink

ALIAS = "hybridnet"
"""IFLA_IFALIAS of a VXLAN device of ours."""

OVERHEAD: dict[Family, int] = {Family.V4: 50, Family.V6: 70}
"""Bytes that the tunnel adds, by the family of the outer packet (RFC 7348)."""

_ID, _GROUP, _LINK, _LOCAL, _LEARNING, _L2MISS, _L3MISS, _PORT, _GROUP6, _LOCAL6 = (
    1,
    2,
    3,
    4,
    7,
    13,
    14,
    15,
    16,
    17,
)
_COLLECT_METADATA = 25


def create_vxlan(rtnl: Rtnl, want: VxlanLink, parent: int) -> None:
    """Create and bring up the device on the device with index *parent*.

    AlreadyExists; InvalidRequest when the MTU does not fit (the kernel would silently reduce it).
    """
    room = get_link(rtnl, parent).mtu - OVERHEAD[family_of(want.local)]
    if want.mtu > room:
        what = f"create VXLAN device {want.name} with MTU {want.mtu}: {want.parent} leaves room for {room}"
        raise InvalidRequest(0, what)
    local = _LOCAL if want.local.version == 4 else _LOCAL6
    data = (
        u32(_ID, want.vni),
        u32(_LINK, parent),
        attribute(local, want.local.packed),
        u8(_LEARNING, 0),
        u16be(_PORT, want.port),
        u8(_L2MISS, 0),
        u8(_L3MISS, 0),
    )
    creation = link_message("vxlan", want.name, mac=want.mac, mtu=want.mtu, up=True, data=data)
    for error in rtnl.batch((creation, change_message(want.name, alias=ALIAS))):
        if error is not None:
            raise error


def vxlan_difference(link: Link, want: VxlanLink, parent: int) -> str:
    """What of *link* keeps it from being *want* and cannot be changed in place; empty when nothing does."""
    if link.kind != "vxlan":
        return f"it is a device of kind {link.kind or 'hardware'}"
    have = parse(link.data)
    port = struct.unpack(">H", have.get(_PORT, b"\0\0"))[0]
    checks: tuple[tuple[str, object, object], ...] = (
        ("vni", read_u32(have.get(_ID, b"")), want.vni),
        ("parent index", read_u32(have.get(_LINK, b"")), parent),
        ("local address", _local(have), want.local),
        ("port", port, want.port),
        ("learning", _flag(have, _LEARNING), False),
        ("l2miss", _flag(have, _L2MISS), False),
        ("l3miss", _flag(have, _L3MISS), False),
        ("external", _flag(have, _COLLECT_METADATA), False),
        ("default destination", _GROUP in have or _GROUP6 in have, False),
    )
    return "; ".join(f"{name} is {is_} instead of {wanted}" for name, is_, wanted in checks if is_ != wanted)


def ensure_vxlan(rtnl: Rtnl, want: VxlanLink, parent: int) -> str:
    """Make the device be as *want*; MAC, MTU, alias and up are changed in place.

    Returns why it had to be created (a reason in words, ``missing`` when it was not there), or the empty string
    when it was kept. With a created device the kernel has dropped every address, route, neighbour and FDB entry on
    it. AlreadyExists when a device of the name is not ours and differs.
    """
    try:
        link = get_link(rtnl, want.name)
    except DeviceNotFound:
        create_vxlan(rtnl, want, parent)
        return "missing"
    difference = vxlan_difference(link, want, parent)
    if not difference:
        if _changeable(link) != (want.mac, want.mtu, True, ALIAS):
            rtnl.request(change_message(link.index, up=True, mac=want.mac, mtu=want.mtu, alias=ALIAS))
        return ""
    if link.kind != "vxlan" or link.alias != ALIAS:
        raise AlreadyExists(0, f"create VXLAN device {want.name}: it exists, and {difference}")
    delete_link(rtnl, link.index)
    create_vxlan(rtnl, want, parent)
    return difference


def read_vxlan(link: Link, name_of: Callable[[int], str]) -> VxlanLink | None:
    """The device as a value, if it is one of ours and up; what a value cannot say counts as absent.

    *name_of* maps a device index to a name (the parent's).
    """
    if link.kind != "vxlan" or link.alias != ALIAS or not link.up:
        return None
    have = parse(link.data)
    local, parent = _local(have), read_u32(have.get(_LINK, b""))
    if local is None:
        return None
    value = VxlanLink(
        name=link.name,
        vni=read_u32(have.get(_ID, b"")),
        parent=name_of(parent),
        local=local,
        port=struct.unpack(">H", have.get(_PORT, b"\0\0"))[0],
        mac=link.mac,
        mtu=link.mtu,
    )
    hidden = vxlan_difference(link, value, parent)
    return None if hidden else value


def _changeable(link: Link) -> tuple[str, int, bool, str]:
    return link.mac, link.mtu, link.up, link.alias


def _local(have: dict[int, bytes]) -> IPAddress | None:
    """The kernel reports an unset address as zeros, of either family."""
    found = have.get(_LOCAL) or have.get(_LOCAL6)
    return read_address(found) if found and any(found) else None


def _flag(have: dict[int, bytes], kind: int) -> bool:
    return any(have.get(kind, b""))
