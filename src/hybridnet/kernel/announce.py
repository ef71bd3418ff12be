"""Telling a segment where an address is: gratuitous ARP and unsolicited neighbour advertisements.

Receivers that have an entry for the address change it at once, so an address that moves is found again without
waiting for their entries to age. IPv4: an ARP announcement (RFC 5227, 2.3: a request whose sender and target are
the address) and the reply form that some stacks want. IPv6: an advertisement with the override flag to all nodes
(RFC 4861, 7.2.6), sent from the address itself, as its owner would. The MAC announced is that of the device.

Whole frames go out by a packet socket: an ICMPv6 socket would need a source address on the device, which a device
of ours may lack or still be testing.
"""

import fcntl
import socket
import struct
from collections.abc import Iterable
from contextlib import closing

from hybridnet.kernel.errors import NotSupported, kernel_error
from hybridnet.model.address import IPAddress

_BROADCAST = b"\xff" * 6
_ETHERTYPE_ARP, _ETHERTYPE_IPV6 = 0x0806, 0x86DD
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMPV6 = 58
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x2000_0000
_TARGET_LINK_LAYER_ADDRESS = 2
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_SIOCGIFHWADDR, _ARPHRD_ETHER = 0x8927, 1  # netdevice(7)
_NAME_SIZE = 16
_IFREQ = struct.Struct(f"{_NAME_SIZE}s24s")
_HARDWARE_ADDRESS = struct.Struct("=H6s")


class Announcer:
    """One packet socket for all announcements of the namespace that it was made in. NotPermitted.

    Long-lived, because closing a packet socket waits for RCU: ten milliseconds and more in which its thread does
    nothing else.
    """

    def __init__(self) -> None:
        try:
            self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: receives nothing
        except OSError as error:
            raise kernel_error(error.errno or 0, "open a packet socket") from error

    def announce(self, device: str, addresses: Iterable[IPAddress]) -> None:
        """Announce *addresses* on *device*, once each.

        KernelError: DeviceNotFound, Unreachable (the device is down), NotSupported (it has no MAC).
        """
        try:
            mac = self._mac(device)
            for address in addresses:
                for frame in frames(mac, address):
                    self._raw.sendto(frame, (device, 0))
        except OSError as error:
            raise kernel_error(error.errno or 0, f"announce addresses on {device}") from error

    def _mac(self, device: str) -> bytes:
        request = _IFREQ.pack(device.encode(), b"")
        kind, mac = _HARDWARE_ADDRESS.unpack_from(fcntl.ioctl(self._raw, _SIOCGIFHWADDR, request), _NAME_SIZE)
        if kind != _ARPHRD_ETHER:
            raise NotSupported(0, f"{device} is no Ethernet device")
        return bytes(mac)

    def close(self) -> None:
        """Give the socket back."""
        self._raw.close()


def announce(device: str, addresses: Iterable[IPAddress]) -> None:
    """Announce *addresses* on *device* of the calling thread's namespace, once each (errors: Announcer's)."""
    with closing(Announcer()) as announcer:
        announcer.announce(device, addresses)


def frames(mac: bytes, address: IPAddress) -> tuple[bytes, ...]:
    """The Ethernet frames that say that *mac* has *address*."""
    if address.version == 4:
        return arp_frames(mac, address.packed)
    return (advertisement_frame(mac, address.packed),)


def arp_frames(mac: bytes, address: bytes) -> tuple[bytes, bytes]:
    """The announcement in its request and its reply form."""
    header = _ETHERNET.pack(_BROADCAST, mac, _ETHERTYPE_ARP)
    request = _ARP.pack(1, 0x0800, 6, 4, _REQUEST, mac, address, b"\0" * 6, address)
    reply = _ARP.pack(1, 0x0800, 6, 4, _REPLY, mac, address, _BROADCAST, address)
    return header + request, header + reply


def advertisement_frame(mac: bytes, address: bytes) -> bytes:
    """The unsolicited advertisement to all nodes."""
    option = struct.pack("!BB6s", _TARGET_LINK_LAYER_ADDRESS, 1, mac)
    body = struct.pack("!I16s", _OVERRIDE, address) + option
    length = 4 + len(body)
    pseudo = struct.pack("!16s16sII", address, _ALL_NODES, length, _ICMPV6)
    head = struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0)
    head = struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, checksum(pseudo + head + body))
    ethernet = _ETHERNET.pack(_ALL_NODES_MAC, mac, _ETHERTYPE_IPV6)
    return ethernet + _IPV6.pack(6 << 28, length, _ICMPV6, 255, address, _ALL_NODES) + head + body


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
