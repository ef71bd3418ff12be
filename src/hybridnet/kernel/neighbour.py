"""Neighbour entries, neighbour proxies and VXLAN forwarding entries.

A proxy and a neighbour of ours carry our protocol number. The FDB of a VXLAN device keeps none: every entry with a
destination on a device of ours is ours.
"""

import struct
from collections.abc import Callable
from enum import IntFlag

from msgspec import Struct

from hybridnet.kernel.describe import About
from hybridnet.kernel.netlink import (
    AF,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    Rtnl,
    attribute,
    parse,
    read_address,
    read_mac,
    u8,
)
from hybridnet.kernel.netlink import (
    mac as mac_attribute,
)
from hybridnet.model.address import Family, IPAddress, family_of
from hybridnet.plan.state import PROTOCOL, FdbEntry, ProxyNeighbour

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

_NDMSG = struct.Struct("=BxxxiHBB")
"""family, ifindex, state, flags, type"""
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX, _NDA_PROTOCOL = 1, 2, 8, 12
_NTF_SELF, _NTF_PROXY = 0x02, 0x08
_AF_BRIDGE = 7


class NeighbourState(IntFlag):
    """NUD_* (linux/neighbour.h)."""

    NONE = 0x00
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80


class Neighbour(Struct, frozen=True, gc=False):
    """An entry of the neighbour table. *mac* is empty while it is not resolved."""

    index: int
    """Of the device."""
    address: IPAddress
    mac: str
    state: NeighbourState
    protocol: int = 0


def set_neighbour(
    index: int, address: IPAddress, mac: str, state: NeighbourState = NeighbourState.REACHABLE
) -> Message:
    """Create or overwrite the entry of *address* on the device with *index*; it carries our protocol."""
    body = b"".join(
        (
            _NDMSG.pack(AF[family_of(address)], index, state, 0, 0),
            attribute(_NDA_DST, address.packed),
            mac_attribute(_NDA_LLADDR, mac) if mac else b"",
            u8(_NDA_PROTOCOL, PROTOCOL),
        )
    )
    about = f"set neighbour {address} lladdr {mac} on device {index}"
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, about)


def delete_neighbour(index: int, address: IPAddress) -> Message:
    """Delete the entry of *address*, whoever made it; ObjectNotFound when there is none."""
    body = _NDMSG.pack(AF[family_of(address)], index, 0, 0, 0) + attribute(_NDA_DST, address.packed)
    return Message(RTM_DELNEIGH, 0, body, f"delete neighbour {address} on device {index}")


def dump_neighbours(rtnl: Rtnl, index: int = 0) -> list[Neighbour]:
    """The neighbour table of both families, of the device with *index* (filtered in the kernel) or of all."""
    found: list[Neighbour] = []
    for family in Family:
        body = _NDMSG.pack(AF[family], 0, 0, 0, 0)
        if index:
            body += attribute(_NDA_IFINDEX, struct.pack("=I", index))
        answers = rtnl.dump(RTM_GETNEIGH, body, f"list IPv{family} neighbours")
        found.extend(filter(None, map(parse_neighbour, answers)))
    return found


def parse_neighbour(body: bytes) -> Neighbour | None:
    """A Neighbour from ndmsg and its attributes; None for what has no address."""
    _, index, state, _, _ = _NDMSG.unpack_from(body)
    found = parse(body, _NDMSG.size)
    if len(found.get(_NDA_DST, b"")) not in (4, 16):
        return None
    return Neighbour(
        index=index,
        address=read_address(found[_NDA_DST]),
        mac=read_mac(found.get(_NDA_LLADDR, b"")),
        state=NeighbourState(state),
        protocol=found.get(_NDA_PROTOCOL, b"\0")[0],
    )


def set_proxy(proxy: ProxyNeighbour, index: int) -> Message:
    """Create or take over the proxy entry on the device with *index*."""
    body = _proxy_body(proxy, index) + u8(_NDA_PROTOCOL, PROTOCOL)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, About("set", proxy))


def delete_proxy(proxy: ProxyNeighbour, index: int) -> Message:
    """Delete the proxy entry; ObjectNotFound when it is gone."""
    return Message(RTM_DELNEIGH, 0, _proxy_body(proxy, index), About("delete", proxy))


def dump_proxies(
    rtnl: Rtnl, name_of: Callable[[int], str], *, protocol: int = PROTOCOL
) -> list[ProxyNeighbour]:
    """The proxy entries of *protocol*, of both families. (The kernel filters the proxies, not the protocol.)"""
    found: list[ProxyNeighbour] = []
    for family in Family:
        body = _NDMSG.pack(AF[family], 0, 0, _NTF_PROXY, 0)
        for answer in rtnl.dump(RTM_GETNEIGH, body, f"list IPv{family} neighbour proxies"):
            entry = parse_neighbour(answer)
            if entry is not None and entry.protocol == protocol:
                found.append(ProxyNeighbour(name_of(entry.index), entry.address))
    return found


def set_fdb(entry: FdbEntry, index: int) -> Message:
    """Point a unicast MAC to its VTEP (replace), or add a VTEP to a multicast MAC (append)."""
    flags = NLM_F_CREATE | (NLM_F_APPEND if entry.multicast else NLM_F_REPLACE)
    return Message(RTM_NEWNEIGH, flags, _fdb_body(entry, index), About("set", entry))


def delete_fdb(entry: FdbEntry, index: int) -> Message:
    """Delete one destination of a MAC; ObjectNotFound when it is gone."""
    return Message(RTM_DELNEIGH, 0, _fdb_body(entry, index), About("delete", entry))


def dump_fdb(rtnl: Rtnl, index: int, name: str) -> list[FdbEntry]:
    """All entries with a destination on the VXLAN device with *index*, called *name*."""
    body = _NDMSG.pack(_AF_BRIDGE, 0, 0, 0, 0) + attribute(_NDA_IFINDEX, struct.pack("=I", index))
    found: list[FdbEntry] = []
    for answer in rtnl.dump(RTM_GETNEIGH, body, f"list fdb of {name}"):
        attributes = parse(answer, _NDMSG.size)
        same = _NDMSG.unpack_from(answer)[1] == index
        if same and _NDA_DST in attributes and _NDA_LLADDR in attributes:
            address = read_address(attributes[_NDA_DST])
            found.append(FdbEntry(name, read_mac(attributes[_NDA_LLADDR]), address))
    return found


def _proxy_body(proxy: ProxyNeighbour, index: int) -> bytes:
    header = _NDMSG.pack(AF[family_of(proxy.address)], index, 0, _NTF_PROXY, 0)
    return header + attribute(_NDA_DST, proxy.address.packed)


def _fdb_body(entry: FdbEntry, index: int) -> bytes:
    return b"".join(
        (
            _NDMSG.pack(_AF_BRIDGE, index, NeighbourState.PERMANENT, _NTF_SELF, 0),
            mac_attribute(_NDA_LLADDR, entry.mac),
            attribute(_NDA_DST, entry.destination.packed),
        )
    )
