"""Netlink: the codec of messages and attributes, and one rtnetlink socket.

Written with ``struct`` because general libraries cost 30 to 1,000 times as much per request (a route in 26 us
instead of 737). Three properties that everything above relies on:

* a batch goes to the kernel in as few system calls as possible; only its last message asks for an ACK, a
  failure is reported anyway, and each message fails alone;
* a dump that the kernel marks as interrupted (NLM_F_DUMP_INTR) is repeated, never returned half consistent;
* errors carry the kernel's own explanation (extended acknowledgement).

Integers are in host byte order unless named ``be``. Source: linux/netlink.h, linux/rtnetlink.h.
"""

import contextlib
import errno as codes
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Self

from hybridnet.kernel.errors import DumpInterrupted, KernelError, kernel_error
from hybridnet.kernel.namespace import Namespace
from hybridnet.model.address import Family, IPAddress

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_ACK_TLVS = 0x200

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF

SOL_NETLINK = 270
NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK = 11, 10, 12
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 4 << 20
"""Bytes; holds the error answers of the largest batch."""

_BATCH_BYTES = 64 << 10
_DUMP_ATTEMPTS = 8
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

AF: dict[Family, int] = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}
FAMILY_OF_AF: dict[int, Family] = {int(af): family for family, af in AF.items()}


class Message(NamedTuple):
    """A request without its header. *about* is what an error message calls it (formatted only then)."""

    type: int
    flags: int
    body: bytes
    about: object = "request"


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length & 3)


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, bytes((value,)))


def u16be(kind: int, value: int) -> bytes:
    """An attribute of 16 bits in network byte order (ports)."""
    return attribute(kind, value.to_bytes(2, "big"))


def u32(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """A string attribute, terminated by zero."""
    return attribute(kind, value.encode() + b"\0")


def mac(kind: int, value: str) -> bytes:
    """A link-layer address attribute from ``02:00:00:00:00:01``."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def parse(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in *data* from *offset* on; of several of one kind the last."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def read_u32(data: bytes) -> int:
    """The value of a 32-bit attribute."""
    return int.from_bytes(data[:4], sys.byteorder)


def read_text(data: bytes) -> str:
    """The value of a string attribute."""
    return data.rstrip(b"\0").decode(errors="replace")


def read_mac(data: bytes) -> str:
    """``02:00:00:00:00:01`` from the bytes of a link-layer address."""
    return data.hex(":")


def read_address(data: bytes) -> IPAddress:
    """The address in 4 or 16 bytes."""
    return IPv4Address(data) if len(data) == 4 else IPv6Address(data)


class Rtnl:
    """One rtnetlink socket of one namespace (default: the caller's). Synchronous; one thread at a time.

    A request takes about 30 us, because the kernel answers before ``send`` returns; so it may be called from
    an event loop. The socket stays in its namespace for ever, the Namespace may be closed.
    """

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._socket = namespace.run(_open_socket) if namespace else _open_socket()
        self._sequence = 0

    @property
    def port(self) -> int:
        """Our port id: what notifications name as the origin of our own changes."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, message: Message) -> None:
        """Send one message and wait until the kernel has done it. Raises KernelError."""
        error = self.batch((message,))[0]
        if error is not None:
            raise error

    def batch(self, messages: Sequence[Message]) -> list[KernelError | None]:
        """Send *messages* in order; for each its error or None. One failure does not stop the others."""
        results: list[KernelError | None] = [None] * len(messages)
        start = 0
        while start < len(messages):
            end, size = start, 0
            while end < len(messages) and (size == 0 or size + len(messages[end].body) < _BATCH_BYTES):
                size += len(messages[end].body) + 16
                end += 1
            self._send_chunk(messages, start, end, results)
            start = end
        return results

    def get(self, message: Message) -> bytes:
        """Send a GET for one object and return the body of the answer. Raises KernelError."""
        sequence = self._send((message,), ack_last=False)
        for _, flags, answered, kind, body in self._answers():
            if answered != sequence:
                continue
            if kind == _NLMSG_ERROR:
                raise _error_of(flags, body, message.about)
            return body
        raise AssertionError("unreachable: _answers never ends")

    def dump(self, kind: int, body: bytes, about: object = "dump") -> list[bytes]:
        """Every answer's body (after nlmsghdr) to a dump request; consistent, or DumpInterrupted."""
        for _ in range(_DUMP_ATTEMPTS):
            bodies = self._dump_once(kind, body, about)
            if bodies is not None:
                return bodies
        raise DumpInterrupted(codes.EINTR, str(about))

    def _dump_once(self, kind: int, body: bytes, about: object) -> list[bytes] | None:
        sequence = self._send((Message(kind, NLM_F_DUMP, body, about),), ack_last=False)
        bodies: list[bytes] = []
        interrupted = False
        for _, flags, answered, answer, payload in self._answers():
            if answered != sequence:
                continue
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if answer == _NLMSG_ERROR:
                raise _error_of(flags, payload, about)
            if answer == _NLMSG_DONE:
                _check_done(payload, about)
                break
            bodies.append(payload)
        return None if interrupted else bodies

    def _send_chunk(
        self, messages: Sequence[Message], start: int, end: int, results: list[KernelError | None]
    ) -> None:
        last = self._send(messages[start:end], ack_last=True)
        first = last - (end - start) + 1
        for _, flags, answered, kind, body in self._answers():
            if kind != _NLMSG_ERROR or not first <= answered <= last:
                continue
            index = start + answered - first
            if struct.unpack_from("=i", body)[0] != 0:
                results[index] = _error_of(flags, body, messages[index].about)
            if answered == last:
                return

    def _send(self, messages: Iterable[Message], *, ack_last: bool) -> int:
        """Send in one system call and return the last sequence number."""
        parts: list[bytes] = []
        batch = list(messages)
        for position, message in enumerate(batch):
            self._sequence += 1
            flags = message.flags | NLM_F_REQUEST
            if ack_last and position == len(batch) - 1:
                flags |= NLM_F_ACK
            parts.append(
                _HEADER.pack(16 + len(message.body), message.type, flags, self._sequence & 0xFFFFFFFF, 0)
            )
            parts.append(message.body)
        self._socket.send(b"".join(parts))
        return self._sequence

    def _answers(self) -> Iterator[tuple[int, int, int, int, bytes]]:
        while True:
            yield from split(self._receive())

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 16)
        except OSError as error:
            raise kernel_error(error.errno or codes.EIO, "read a netlink answer") from error


def split(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """The messages in one datagram: (port id, flags, sequence, type, body)."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield port, flags, sequence, kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _open_socket() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    with contextlib.suppress(PermissionError):  # unprivileged readers keep the default buffer
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
        opened.setsockopt(SOL_NETLINK, option, 1)
    opened.bind((0, 0))
    return opened


def _error_of(flags: int, body: bytes, about: object) -> KernelError:
    """From NLMSG_ERROR: errno, the request's header (capped), then attributes."""
    code: int = struct.unpack_from("=i", body)[0]
    detail = ""
    if flags & NLM_F_ACK_TLVS:
        detail = read_text(parse(body, 20).get(_NLMSGERR_ATTR_MSG, b""))
    return kernel_error(-code, str(about), detail)


def _check_done(payload: bytes, about: object) -> None:
    """A dump that fails half-way says so in NLMSG_DONE."""
    code: int = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code < 0:
        raise kernel_error(-code, str(about), read_text(parse(payload, 4).get(_NLMSGERR_ATTR_MSG, b"")))
