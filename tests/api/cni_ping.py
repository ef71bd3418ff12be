"""One echo request and its reply, of a given size, never fragmented (RFC 792, RFC 4443)."""

import itertools
import os
import socket
import struct
import time

from hybridnet.kernel.namespace import Namespace
from hybridnet.model.address import IPAddress

SECONDS = 2.0
HEADERS = {4: 28, 6: 48}
"""IP and ICMP headers in bytes."""
_KINDS = {4: (8, 0), 6: (128, 129)}
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_numbers = itertools.count(1)


def answers(sender: Namespace, target: IPAddress, size: int = 84, seconds: float = SECONDS) -> bool:
    """Whether *target* answers a packet of *size* bytes (with its IP header) within *seconds*."""
    number = next(_numbers) & 0xFFFF
    body = _request(target.version, number, size)
    with sender.run(lambda: _open(target.version)) as channel:
        try:
            channel.sendto(body, (str(target), 0))
        except OSError:  # no route, or larger than the device
            return False
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            channel.settimeout(left)
            try:
                data = channel.recv(65536)
            except TimeoutError:
                break
            except OSError:  # an ICMP error came back
                return False
            message = data if target.version == 6 else data[(data[0] & 0xF) * 4 :]
            if message[0] == _KINDS[target.version][1] and message[4:] == body[4:]:
                return True
    return False


def _open(version: int) -> socket.socket:
    if version == 6:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    return made


def _request(version: int, number: int, size: int) -> bytes:
    payload = bytes(size - HEADERS[version])
    body = struct.pack("!BBHHH", _KINDS[version][0], 0, 0, os.getpid() & 0xFFFF, number) + payload
    if version == 6:  # the kernel fills in the checksum
        return body
    padded = body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
