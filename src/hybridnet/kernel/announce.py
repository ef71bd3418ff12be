"""Telling a segment where an address is: gratuitous ARP and unsolicited neighbour advertisements.

Receivers that have an entry for the address change it at once, so an address that moves is found again without
waiting for their entries to age. IPv4: an ARP announcement (RFC 5227, 2.3: a request whose sender and target are
the address) and the reply form that some stacks want. IPv6: an advertisement with the override flag to all nodes
(RFC 4861, 7.2.6). The MAC announced is that of the device.
"""

import socket
import struct
from collections.abc import Iterable
from contextlib import closing

from hybridnet.kernel.errors import KernelError, kernel_error
from hybridnet.model.address import IPAddress

_BROADCAST = b"\xff" * 6
_ETHERTYPE_ARP = 0x0806
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x2000_0000
_TARGET_LINK_LAYER_ADDRESS = 2
_ALL_NODES = "ff02::1"


def announce(device: str, addresses: Iterable[IPAddress]) -> None:
    """Announce *addresses* on *device*, once each. KernelError (DeviceNotFound, NotPermitted)."""
    for address in addresses:
        try:
            if address.version == 4:
                _announce_arp(device, address.packed)
            else:
                _announce_ndp(device, address.packed)
        except OSError as error:
            raise kernel_error(error.errno or 0, f"announce {address} on {device}") from error


def arp_frames(mac: bytes, address: bytes) -> tuple[bytes, bytes]:
    """The announcement in its request and its reply form, as whole frames."""
    header = _ETHERNET.pack(_BROADCAST, mac, _ETHERTYPE_ARP)
    request = _ARP.pack(1, 0x0800, 6, 4, _REQUEST, mac, address, b"\0" * 6, address)
    reply = _ARP.pack(1, 0x0800, 6, 4, _REPLY, mac, address, _BROADCAST, address)
    return header + request, header + reply


def advertisement(mac: bytes, address: bytes) -> bytes:
    """The ICMPv6 message; its checksum is filled in by the kernel."""
    head = struct.pack("!BBHI16s", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE, address)
    return head + struct.pack("!BB6s", _TARGET_LINK_LAYER_ADDRESS, 1, mac)


def _announce_arp(device: str, address: bytes) -> None:
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as raw:
        raw.bind((device, 0))
        for frame in arp_frames(_mac(raw), address):
            raw.send(frame)


def _announce_ndp(device: str, address: bytes) -> None:
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as reader:
        reader.bind((device, 0))
        mac = _mac(reader)
    index = socket.if_nametoindex(device)
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        raw.sendto(advertisement(mac, address), (_ALL_NODES, 0, 0, index))


def _mac(bound: socket.socket) -> bytes:
    """The link-layer address of the device that a packet socket is bound to."""
    mac: bytes = bound.getsockname()[4]
    if len(mac) != 6:
        raise KernelError(0, f"{bound.getsockname()[0]} is no Ethernet device")
    return mac
