"""The sending side: one probe of each protocol, full size, not to be fragmented.

The first packet between two ends may wait a second for ARP or NDP, so UDP and ICMP are repeated until answered; an
error that the network returns ends the wait at once and is reported as it came. TCP would quietly adapt to a path
that carries less than it should, so what it has learnt of the path is looked at afterwards.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable

from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.matrix.cells import Cell, Protocol
from hybridnet.lab.matrix.frames import fill, read_token
from hybridnet.lab.matrix.judge import TOO_SMALL
from hybridnet.lab.matrix.options import address_family, forbid_fragments, path_mtu
from hybridnet.lab.matrix.responder import ARRIVED, LENGTH_BYTES, PORT
from hybridnet.model.address import Family

REPEAT_SECONDS = 0.4
GIVE_UP_SECONDS = 3.0
_HEADER = {Family.V4: 20, Family.V6: 40}
_TRANSPORT = 8
"""Bytes of a UDP or an ICMP echo header."""
_TCP_SEGMENTS = 3
_ECHO = {Family.V4: (8, 0), Family.V6: (128, 129)}


async def probe(cell: Cell, number: int) -> str:
    """Send a probe and wait for its answer. Empty when it came, else what came instead."""
    run = {Protocol.ICMP: _icmp, Protocol.UDP: _udp, Protocol.TCP: _tcp}[cell.protocol]
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await run(cell, number)
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return ""


async def _tcp(cell: Cell, number: int) -> None:
    opened = _open(cell, socket.SOCK_STREAM, 0)
    try:
        await asyncio.get_running_loop().sock_connect(opened, (str(cell.target), PORT))
        reader, writer = await asyncio.open_connection(sock=opened)
        body = fill(number, _TCP_SEGMENTS * cell.mtu)
        writer.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        if read_token(await reader.readexactly(len(body))) != (number, True):
            raise OSError(errno.EBADMSG, "another probe's answer")
        writer.write(ARRIVED)
        back = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        _check_mtu(cell, path_mtu(opened, cell.family))
        _check_mtu(cell, back)
    except asyncio.IncompleteReadError as error:
        raise OSError(errno.ECONNRESET, "connection closed") from error
    finally:
        opened.close()


async def _udp(cell: Cell, number: int) -> None:
    opened = _open(cell, socket.SOCK_DGRAM, 0)
    try:
        opened.connect((str(cell.target), PORT))
        payload = fill(number, _payload_size(cell))
        await _ask(opened, cell, payload, lambda data: read_token(data) == (number, True))
    finally:
        opened.close()


async def _icmp(cell: Cell, number: int) -> None:
    v4 = cell.family is Family.V4
    opened = _open(cell, socket.SOCK_RAW, socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6)
    request, reply = _ECHO[cell.family]
    message = struct.pack("!BBHHH", request, 0, 0, number & 0xFFFF, 1) + fill(number, _payload_size(cell))
    if v4:
        message = message[:2] + _checksum(message) + message[4:]

    def is_answer(data: bytes) -> bool:
        body = data[(data[0] & 0xF) * 4 :] if v4 else data
        found = read_token(body)
        return found is not None and found[0] == number and body[0] == reply

    try:
        opened.connect((str(cell.target), 0))
        await _ask(opened, cell, message, is_answer)
    finally:
        opened.close()


async def _ask(opened: socket.socket, cell: Cell, message: bytes, is_answer: Callable[[bytes], bool]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            opened.send(message)
            async with asyncio.timeout(REPEAT_SECONDS):
                while not is_answer(await loop.sock_recv(opened, 1 << 16)):
                    pass
                return
        except TimeoutError:
            continue
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                _check_mtu(cell, path_mtu(opened, cell.family))
                raise OSError(errno.EMSGSIZE, f"{TOO_SMALL} less than {cell.mtu} bytes") from error
            raise


def _payload_size(cell: Cell) -> int:
    return cell.mtu - _HEADER[cell.family] - _TRANSPORT


def _check_mtu(cell: Cell, known: int) -> None:
    if known < cell.mtu:
        raise OSError(errno.EMSGSIZE, f"{TOO_SMALL} {known} bytes, not {cell.mtu}")


def _open(cell: Cell, kind: int, protocol: int) -> socket.socket:
    with Namespace.open(cell.sender.netns) as namespace:
        opened = namespace.run(lambda: socket.socket(address_family(cell.family), kind, protocol))
    forbid_fragments(opened, cell.family)
    opened.setblocking(False)
    return opened


def _checksum(message: bytes) -> bytes:
    data = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
