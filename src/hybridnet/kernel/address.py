"""Addresses of ours on devices: no prefix route, no duplicate address detection, marked by IFA_PROTO.

DAD would take one to two seconds; our addresses are on devices whose segment only we populate, or have been
probed by the agent. IFA_PROTO is kept since Linux 5.18; an older kernel ignores it, then an address counts as ours
when it has no prefix route and is on a VXLAN device of ours.
"""

import struct
from collections.abc import Callable, Container
from ipaddress import ip_interface
from typing import Final

from hybridnet.kernel.describe import About
from hybridnet.kernel.netlink import (
    AF,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Rtnl,
    attribute,
    parse,
    read_address,
    read_u32,
    u8,
    u32,
)
from hybridnet.model.address import Family, IPInterface, family_of
from hybridnet.plan.state import PROTOCOL, LinkAddress, Scope

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22

_IFADDR = struct.Struct("=BBBBI")
_ADDRESS, _LOCAL, _FLAGS, _PROTO = 1, 2, 8, 11
_NODAD, _PERMANENT, _NOPREFIXROUTE = 0x02, 0x80, 0x200
_OURS: Final = _NODAD | _NOPREFIXROUTE


def add_address(address: LinkAddress, index: int) -> Message:
    """Add *address* to the device with *index*; AlreadyExists when it is there, whoever made it."""
    body = _body(address, index) + u32(_FLAGS, _OURS | _PERMANENT) + u8(_PROTO, PROTOCOL)
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, About("add", address))


def delete_address(address: LinkAddress, index: int) -> Message:
    """Delete *address*; ObjectNotFound when it is gone."""
    return Message(RTM_DELADDR, 0, _body(address, index), About("delete", address))


def dump_addresses(
    rtnl: Rtnl, name_of: Callable[[int], str], *, devices: Container[int] = (), everything: bool = False
) -> list[LinkAddress]:
    """Our addresses of both families; on *devices* (indexes) also those that carry no protocol.

    *everything*: all addresses of the namespace, whoever made them.
    """
    found: list[LinkAddress] = []
    for family in Family:
        body = _IFADDR.pack(AF[family], 0, 0, 0, 0)
        for answer in rtnl.dump(RTM_GETADDR, body, f"list IPv{family} addresses"):
            _, length, _, scope, index = _IFADDR.unpack_from(answer)
            attributes = parse(answer, _IFADDR.size)
            if everything or _is_ours(attributes, index, devices):
                found.append(LinkAddress(name_of(index), _interface(attributes, length), _scope(scope)))
    return found


def _is_ours(attributes: dict[int, bytes], index: int, devices: Container[int]) -> bool:
    protocol = attributes.get(_PROTO, b"\0")[0]
    flags = read_u32(attributes.get(_FLAGS, b""))
    return protocol == PROTOCOL or (protocol == 0 and index in devices and bool(flags & _NOPREFIXROUTE))


def _interface(attributes: dict[int, bytes], length: int) -> IPInterface:
    data = attributes.get(_LOCAL) or attributes[_ADDRESS]
    return ip_interface((read_address(data), length))


def _scope(value: int) -> Scope:
    """Site scope and numbers of other programs count as universe."""
    return Scope(value) if value in set(Scope) else Scope.UNIVERSE


def _body(address: LinkAddress, index: int) -> bytes:
    interface = address.address
    header = _IFADDR.pack(
        AF[family_of(interface)], interface.network.prefixlen, _OURS & 0xFF, address.scope, index
    )
    return header + attribute(_LOCAL, interface.ip.packed) + attribute(_ADDRESS, interface.ip.packed)
