"""Frames as captured: Ethernet, 802.1Q, IPv4, IPv6, and VXLAN around all of it.

Only headers are read and no length is trusted, because captures are cut short, checksums are left to the NIC, and a
GSO frame is longer than any MTU. Sources: RFC 791, RFC 8200, RFC 7348, RFC 792, RFC 4443.
"""

import struct
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from hybridnet.model.address import IPAddress

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
VXLAN_PORTS = frozenset({4789, 8472})
"""IANA's and Linux's; a tunnel on either is recognised, and the wrong one reported."""

_IPV4, _IPV6, _VLAN = 0x0800, 0x86DD, 0x8100
_EXTENSIONS = frozenset({0, 43, 60})
"""IPv6 hop-by-hop, routing and destination options: same form, skipped alike."""
_VNI_VALID = 0x08
_ECHO = {(ICMP, 8): "request", (ICMP, 0): "reply", (ICMPV6, 128): "request", (ICMPV6, 129): "reply"}


class Echo(Enum):
    """What an ICMP message is to an echo."""

    REQUEST = "request"
    REPLY = "reply"
    OTHER = "other"
    """An error or something else; it may quote the packet that it is about."""


class Encapsulation(Struct, frozen=True):
    """The outer headers of a VXLAN frame."""

    source: IPAddress
    destination: IPAddress
    port: int
    vni: int

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} port {self.port} VNI {self.vni}"


class Frame(Struct, frozen=True):
    """The innermost IP packet of a frame, and what it was wrapped in."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    echo: Echo | None = None
    """For ICMP and ICMPv6 only."""
    outer: Encapsulation | None = None
    port: str = ""
    """Port of the switch that it came in by."""


class _Packet(Struct, frozen=True):
    source: IPAddress
    destination: IPAddress
    protocol: int
    payload: int
    """Offset."""


def parse(data: bytes, port: str = "") -> Frame | None:
    """The frame in *data*; None when it is no IP, or too short to tell."""
    try:
        return _parse(data, port)
    except (struct.error, IndexError):
        return None


def _parse(data: bytes, port: str) -> Frame | None:
    packet = _packet(data, 0)
    if packet is None:
        return None
    outer = None
    if packet.protocol == UDP:
        destination = struct.unpack_from("!H", data, packet.payload + 2)[0]
        flags, vni = (
            struct.unpack_from("!B3xI", data, packet.payload + 8) if destination in VXLAN_PORTS else (0, 0)
        )
        if flags & _VNI_VALID:
            outer = Encapsulation(packet.source, packet.destination, destination, vni >> 8)
            packet = _packet(data, packet.payload + 16)
            if packet is None:
                return None
    echo = None
    if packet.protocol in (ICMP, ICMPV6):
        echo = Echo(_ECHO.get((packet.protocol, data[packet.payload]), "other"))
    return Frame(packet.source, packet.destination, packet.protocol, echo, outer, port)


def _packet(data: bytes, at: int) -> _Packet | None:
    """The IP packet in the Ethernet frame at offset *at*."""
    at += 12
    kind = struct.unpack_from("!H", data, at)[0]
    while kind == _VLAN:
        at += 4
        kind = struct.unpack_from("!H", data, at)[0]
    at += 2
    if kind == _IPV4:
        return _ipv4(data, at)
    return _ipv6(data, at) if kind == _IPV6 else None


def _ipv4(data: bytes, at: int) -> _Packet | None:
    length, fragment, protocol, source, destination = struct.unpack_from("!B5xHxB2x4s4s", data, at)
    if fragment & 0x1FFF:
        return None
    return _Packet(IPv4Address(source), IPv4Address(destination), protocol, at + 4 * (length & 0x0F))


def _ipv6(data: bytes, at: int) -> _Packet:
    following, source, destination = struct.unpack_from("!6xBx16s16s", data, at)
    at += 40
    while following in _EXTENSIONS:
        following, length = struct.unpack_from("!BB", data, at)
        at += 8 * (length + 1)
    return _Packet(IPv6Address(source), IPv6Address(destination), following, at)
