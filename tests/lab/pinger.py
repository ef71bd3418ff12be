"""Pings that go on while something else happens, and tell which were lost.

One raw ICMP socket for each flow, made in the sender's namespace; a thread sends every 10 ms and another reads. A
reply may be late, so losses are counted after the last one had its time.
"""

import socket
import struct
import threading
import time
from ipaddress import ip_address
from typing import Self

from hybridnet.kernel.namespace import Namespace

_V4_REQUEST, _V4_REPLY, _V6_REQUEST, _V6_REPLY = 8, 0, 128, 129
GRACE_SECONDS = 2.0


class Pinger:
    """One flow of echo requests; a context manager. Read ``lost`` after it ended."""

    def __init__(self, namespace: Namespace, target: str, identifier: int, interval: float = 0.01) -> None:
        self.target = target
        self.sent: list[float] = []
        self.answered: set[int] = set()
        self._interval = interval
        self._identifier = identifier
        self._v6 = ip_address(target).version == 6
        self._socket = namespace.run(self._open)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._send, self._receive)]

    def _open(self) -> socket.socket:
        if self._v6:
            return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[0].join()
        deadline = time.monotonic() + GRACE_SECONDS
        while self.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        self._socket.close()

    @property
    def lost(self) -> list[int]:
        """Numbers of the requests that no answer came to."""
        return [n for n in range(len(self.sent)) if n not in self.answered]

    def describe(self) -> str:
        return f"{self.target}: {len(self.lost)} of {len(self.sent)} lost: {self.lost[:20]}"

    def _send(self) -> None:
        while not self._stop.wait(self._interval):
            number = len(self.sent)
            try:
                self._socket.sendto(self._request(number), (self.target, 0))
            finally:
                self.sent.append(time.monotonic())

    def _receive(self) -> None:
        wanted = _V6_REPLY if self._v6 else _V4_REPLY
        while True:
            try:
                data = self._socket.recv(2048)
            except OSError:
                return
            message = data if self._v6 else data[(data[0] & 0xF) * 4 :]
            kind, _, _, identifier, _, number = struct.unpack_from("!BBHHHI", message)
            if kind == wanted and identifier == self._identifier:
                self.answered.add(number)

    def _request(self, number: int) -> bytes:
        kind = _V6_REQUEST if self._v6 else _V4_REQUEST
        body = struct.pack("!BBHHHI", kind, 0, 0, self._identifier, number & 0xFFFF, number) + b"ping" * 8
        if self._v6:  # the kernel fills in the checksum of ICMPv6
            return body
        total = sum(struct.unpack(f"!{len(body) // 2}H", body))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
