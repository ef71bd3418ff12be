"""Frames as a capture sees them: plain or inside VXLAN, and which probe they belong to.

A probe marks its payload with a token, so attribution needs no addresses: NAT and tunnels cannot hide it. Only
what is needed is parsed: Ethernet, IPv4 and IPv6 without extension headers, UDP to the VXLAN port.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from hybridnet.model.address import IPAddress
from hybridnet.plan.layout import VXLAN_PORT

MAGIC = b"hybridnet-matrix"
TOKEN_LENGTH = len(MAGIC) + 9
REQUEST, REPLY = b"?", b"!"
_UDP = 17
_IPV4, _IPV6 = 0x0800, 0x86DD


class Sighting(Struct, frozen=True):
    """One frame of one probe on the fabric."""

    number: int
    reply: bool
    vni: int | None
    """None: not encapsulated."""
    outer: tuple[IPAddress, IPAddress] | None
    """Source and destination of the encapsulation."""
    source: IPAddress
    destination: IPAddress


def token(number: int, *, reply: bool = False) -> bytes:
    """What the payload of probe *number* begins with."""
    return MAGIC + b"%08x" % number + (REPLY if reply else REQUEST)


def read_token(payload: bytes) -> tuple[int, bool] | None:
    """Probe number and direction of a payload; None when it is none of ours."""
    at = payload.find(MAGIC)
    if at < 0 or len(payload) < at + TOKEN_LENGTH:
        return None
    end = at + TOKEN_LENGTH
    return int(payload[at + len(MAGIC) : end - 1], 16), payload[end - 1 : end] == REPLY


def parse_frame(frame: bytes, *, icmp_reply: bool = True) -> Sighting | None:
    """The sighting that an Ethernet frame is; None when no token is in it.

    An echo reply carries the request's own payload, so its direction is told by its ICMP type.
    """
    found = read_token(frame)
    packet = _packet(frame, 14, _ethertype(frame))
    if found is None or packet is None:
        return None
    number, reply = found
    source, destination, protocol, at = packet
    vni, outer = None, None
    if (
        protocol == _UDP
        and len(frame) >= at + 30
        and struct.unpack_from("!H", frame, at + 2)[0] == VXLAN_PORT
    ):
        vni = int.from_bytes(frame[at + 12 : at + 15], "big")
        outer = source, destination
        inner_at = at + 16
        inner = _packet(frame, inner_at + 14, _ethertype(frame[inner_at:]))
        if inner is None:
            return None
        source, destination, protocol, at = inner
    if icmp_reply and protocol in (1, 58) and len(frame) > at:
        reply = frame[at] in (0, 129)
    return Sighting(number, reply, vni, outer, source, destination)


def _ethertype(frame: bytes) -> int:
    return int(struct.unpack_from("!H", frame, 12)[0]) if len(frame) >= 14 else 0


def _packet(frame: bytes, at: int, ethertype: int) -> tuple[IPAddress, IPAddress, int, int] | None:
    """Source, destination, protocol and offset of the payload of an IP packet at *at*."""
    if ethertype == _IPV4 and len(frame) >= at + 20:
        header = (frame[at] & 0xF) * 4
        source, destination = IPv4Address(frame[at + 12 : at + 16]), IPv4Address(frame[at + 16 : at + 20])
        return source, destination, frame[at + 9], at + header
    if ethertype == _IPV6 and len(frame) >= at + 40:
        source6, destination6 = IPv6Address(frame[at + 8 : at + 24]), IPv6Address(frame[at + 24 : at + 40])
        return source6, destination6, frame[at + 6], at + 40
    return None
