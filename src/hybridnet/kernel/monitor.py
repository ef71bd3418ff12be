"""What the kernel tells unasked: neighbour misses, and changes of devices, addresses, routes and rules.

One multicast socket, read by the event loop. When the kernel had to drop notifications (ENOBUFS), that is an event
of its own, Overrun: whoever listens must then look at everything once (a lost notification ended the original's
resolver for good). Changes that this process made itself come back too; ``port`` tells whose request it was.

The neighbour group also carries every change of state of every neighbour, which nobody here wants: a socket filter
drops those in the kernel, so that a busy neighbour table costs this process nothing.
"""

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from hybridnet.kernel.address import RTM_DELADDR, RTM_NEWADDR
from hybridnet.kernel.link import RTM_DELLINK, RTM_NEWLINK
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.neighbour import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, parse_neighbour
from hybridnet.kernel.netlink import SO_RCVBUFFORCE, SOL_NETLINK, parse, read_u32, split
from hybridnet.kernel.route import RTM_DELROUTE, RTM_NEWROUTE
from hybridnet.kernel.rule import RTM_DELRULE, RTM_NEWRULE
from hybridnet.model.address import IPAddress

_GROUPS = {"link": 1, "neigh": 3, "addr4": 5, "route4": 7, "rule4": 8, "addr6": 9, "route6": 11, "rule6": 19}
_NETLINK_ADD_MEMBERSHIP = 1
_SO_ATTACH_FILTER = 26
_RECEIVE_BUFFER = 8 << 20
_IFLA_IFNAME, _RTA_TABLE, _FRA_PROTOCOL = 3, 15, 21
_MESSAGES_AT_ONCE = 256
"""Bounds how long one wake-up may hold the loop."""


class NeighbourMiss(Struct, frozen=True):
    """The kernel asks user space who has *address* on the device with *index* (app_solicit)."""

    index: int
    address: IPAddress


class DeviceChanged(Struct, frozen=True):
    """A device or one of its addresses has come, gone or changed; *gone*: the name of a device that is no more."""

    index: int
    gone: str = ""


class RouteChanged(Struct, frozen=True):
    """A route of *table* (0: a rule) with *protocol* has come or gone; *port* 0: the kernel did it itself."""

    table: int
    protocol: int
    port: int
    removed: bool


class Overrun(Struct, frozen=True):
    """Notifications were lost."""


Notice: TypeAlias = NeighbourMiss | DeviceChanged | RouteChanged | Overrun


class Monitor:
    """Calls *handler* on the running loop for every notice, from :meth:`start` to :meth:`close`."""

    def __init__(self, handler: Callable[[Notice], None], namespace: Namespace | None = None) -> None:
        self._handler = handler
        self._socket = namespace.run(_open) if namespace else _open()

    def start(self) -> None:
        """Begin to listen on the running event loop."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._handler(Overrun())
                continue
            for port, _, _, kind, body in split(data):
                notice = _notice(kind, port, body)
                if notice is not None:
                    self._handler(notice)


def _notice(kind: int, port: int, body: bytes) -> Notice | None:
    if kind == RTM_GETNEIGH:
        found = parse_neighbour(body)
        return NeighbourMiss(found.index, found.address) if found is not None else None
    if kind in (RTM_NEWLINK, RTM_NEWADDR, RTM_DELADDR):
        return DeviceChanged(struct.unpack_from("=i", body, 4)[0])
    if kind == RTM_DELLINK:
        return _departure(body)
    if kind in (RTM_NEWROUTE, RTM_DELROUTE):
        table = read_u32(parse(body, 12).get(_RTA_TABLE, b"")) or body[4]
        return RouteChanged(table, body[5], port, kind == RTM_DELROUTE)
    if kind in (RTM_NEWRULE, RTM_DELRULE):
        protocol = parse(body, 12).get(_FRA_PROTOCOL, b"\0")[0]
        return RouteChanged(0, protocol, port, kind == RTM_DELRULE)
    return None


def _departure(body: bytes) -> DeviceChanged:
    """A bridge tells with the same message that a port has left it; the device itself is still there."""
    name = parse(body, 16).get(_IFLA_IFNAME, b"") if body[0] == socket.AF_UNSPEC else b""
    return DeviceChanged(struct.unpack_from("=i", body, 4)[0], name.rstrip(b"\0").decode())


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    opened.setblocking(False)
    with contextlib.suppress(PermissionError):
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    _drop(opened, RTM_NEWNEIGH, RTM_DELNEIGH)
    opened.bind((0, 0))
    for group in _GROUPS.values():
        opened.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    return opened


def _drop(receiver: socket.socket, *kinds: int) -> None:
    """Let the kernel discard messages of these types (classic BPF, linux/filter.h)."""
    # A notification is one message; its type is the 16 bits at offset 4, which BPF loads as big endian.
    program = [(0x28, 0, 0, 4)]  # ldh [4]
    for position, kind in enumerate(kinds):
        to_drop = len(kinds) - position
        program.append((0x15, to_drop, 0, socket.htons(kind)))  # jeq -> drop
    program += [(0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)]  # ret all; ret nothing
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    receiver.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer))
    )
