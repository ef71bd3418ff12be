"""Frames as a capture sees them: plain or inside VXLAN, and which probe they belong to.

A probe's payload is nothing but its token over and over, so every TCP segment holds a whole one wherever the
kernel cuts, and attribution needs no addresses: NAT and tunnels cannot hide it. No length is trusted, because
segmentation is left to the NIC. Sources: RFC 791, RFC 8200, RFC 7348, RFC 792, RFC 4443.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from hybridnet.model.address import IPAddress

MAGIC = b"hybridnet-matrix"
TOKEN_LENGTH = len(MAGIC) + 9
REQUEST, REPLY = b"?", b"!"
VXLAN_PORTS = frozenset({4789, 8472})
"""IANA's and Linux's own: a tunnel on either is recognised, and the wrong one reported."""

_ICMP, _UDP, _FRAGMENT, _ICMPV6 = 1, 17, 44, 58
_IPV4, _IPV6 = 0x0800, 0x86DD
_IS_REPLY = {(_ICMP, 8): False, (_ICMP, 0): True, (_ICMPV6, 128): False, (_ICMPV6, 129): True}


class Tunnel(Struct, frozen=True):
    """The outer headers of a VXLAN frame."""

    source: IPAddress
    destination: IPAddress
    port: int
    vni: int


class Sighting(Struct, frozen=True):
    """One frame of one probe on the fabric."""

    number: int
    reply: bool
    tunnel: Tunnel | None
    """None: not encapsulated."""
    source: IPAddress
    destination: IPAddress
    fragment: bool = False
    """A router or the sender had to cut the packet up."""


class _Packet(Struct, frozen=True):
    source: IPAddress
    destination: IPAddress
    protocol: int
    payload: int
    """Offset of what the IP packet carries."""
    fragment: bool


def token(number: int, *, reply: bool = False) -> bytes:
    """The token of probe *number*, in one direction."""
    return MAGIC + b"%08x" % number + (REPLY if reply else REQUEST)


def fill(number: int, size: int, *, reply: bool = False) -> bytes:
    """A payload of *size* bytes."""
    each = token(number, reply=reply)
    return (each * (size // len(each) + 1))[:size]


def read_token(payload: bytes) -> tuple[int, bool] | None:
    """Probe number and direction (True: reply) of a payload; None when it is none of ours."""
    at = payload.find(MAGIC)
    end = at + TOKEN_LENGTH
    if at < 0 or len(payload) < end:
        return None
    try:
        return int(payload[at + len(MAGIC) : end - 1], 16), payload[end - 1 : end] == REPLY
    except ValueError:
        return None


def parse_frame(frame: bytes) -> Sighting | None:
    """The sighting that an Ethernet frame is; None when no token is in it.

    An echo reply carries the request's own payload, so its direction is told by its ICMP type. ICMP errors quote
    the packet that they are about: they are no sighting of it.
    """
    found = read_token(frame)
    if found is None:
        return None
    try:
        return _sighting(frame, *found)
    except (struct.error, IndexError):  # too short for what its headers say
        return None


def _sighting(frame: bytes, number: int, reply: bool) -> Sighting | None:
    packet, tunnel = _packet(frame, 0), None
    if packet is not None and packet.protocol == _UDP:
        port = struct.unpack_from("!H", frame, packet.payload + 2)[0]
        if port in VXLAN_PORTS:
            vni = int.from_bytes(frame[packet.payload + 12 : packet.payload + 15], "big")
            tunnel = Tunnel(packet.source, packet.destination, port, vni)
            packet = _packet(frame, packet.payload + 16)
    if packet is None:
        return None
    if packet.protocol in (_ICMP, _ICMPV6):
        direction = _IS_REPLY.get((packet.protocol, frame[packet.payload]))
        if direction is None:
            return None
        reply = direction
    return Sighting(number, reply, tunnel, packet.source, packet.destination, packet.fragment)


def _packet(frame: bytes, at: int) -> _Packet | None:
    """The IP packet in the Ethernet frame that begins at *at*; None when it holds another protocol."""
    kind = struct.unpack_from("!H", frame, at + 12)[0]
    if kind == _IPV4:
        return _ipv4(frame, at + 14)
    return _ipv6(frame, at + 14) if kind == _IPV6 else None


def _ipv4(frame: bytes, at: int) -> _Packet:
    first, offset, protocol, source, destination = struct.unpack_from("!B5xHxB2x4s4s", frame, at)
    payload = at + 4 * (first & 0x0F)
    return _Packet(IPv4Address(source), IPv4Address(destination), protocol, payload, bool(offset & 0x3FFF))


def _ipv6(frame: bytes, at: int) -> _Packet:
    protocol, source, destination = struct.unpack_from("!6xBx16s16s", frame, at)
    payload = at + 40
    fragment = protocol == _FRAGMENT
    if fragment:
        protocol, payload = frame[payload], payload + 8
    return _Packet(IPv6Address(source), IPv6Address(destination), protocol, payload, fragment)
