"""The receiving side of probes: answers TCP and UDP, and notes the source of everything that arrives.

Sockets are made inside the endpoint's namespace and used from this process. Echo requests are answered by the
kernel; a raw socket beside it shows whom they came from.
"""

import asyncio
import contextlib
import errno
import socket
from ipaddress import ip_address

from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.errors import LabError
from hybridnet.lab.matrix.cells import Endpoint
from hybridnet.lab.matrix.frames import fill, read_token
from hybridnet.lab.matrix.options import address_family, forbid_fragments, path_mtu
from hybridnet.model.address import Family

PORT = 20017
LENGTH_BYTES = 4
"""A TCP probe begins with the length of its body, in network byte order."""
ARRIVED = b"!"
"""What a TCP client sends when it has the answer."""
_ECHO_REQUEST = {Family.V4: 8, Family.V6: 128}


class Responder:
    """Answers at one endpoint, in every family that it has."""

    def __init__(self, endpoint: Endpoint, arrivals: dict[int, str]) -> None:
        """*arrivals* maps a probe's number to the source address that was seen."""
        self._endpoint = endpoint
        self._arrivals = arrivals
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []

    async def start(self) -> None:
        """Begin to answer."""
        with Namespace.open(self._endpoint.netns) as namespace:
            for family in sorted({Family(a.version) for a in self._endpoint.addresses}):
                tcp, udp, icmp = self._open(namespace, family)
                server = await asyncio.start_server(self._serve_tcp, sock=tcp)
                self._servers.append(server)
                loop = asyncio.get_running_loop()
                loop.add_reader(udp, self._serve_udp, udp)
                loop.add_reader(icmp, self._note_icmp, icmp, family)
                self._sockets += [udp, icmp]

    def _open(
        self, namespace: Namespace, family: Family
    ) -> tuple[socket.socket, socket.socket, socket.socket]:
        try:
            return namespace.run(lambda: _open(family))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            what = f"port {PORT} of {self._endpoint.name} is in use"
            raise LabError(f"{what}: wait for the other matrix that is running on this lab") from error

    async def stop(self) -> None:
        """Stop answering."""
        for opened in self._sockets:
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def _note(self, number: int, source: str) -> None:
        self._arrivals.setdefault(number, str(ip_address(source.split("%", maxsplit=1)[0])))

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a body with its like; then, when it has arrived, with the path MTU of the way back."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
            found = read_token(await reader.readexactly(size))
            if found is not None:
                self._note(found[0], writer.get_extra_info("peername")[0])
                writer.write(fill(found[0], size, reply=True))
                await reader.readexactly(len(ARRIVED))
                opened = writer.get_extra_info("socket")
                family = Family.V4 if opened.family == socket.AF_INET else Family.V6
                writer.write(path_mtu(opened, family).to_bytes(LENGTH_BYTES, "big"))
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    def _serve_udp(self, udp: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            payload, peer = udp.recvfrom(1 << 16)
            found = read_token(payload)
            if found is not None:
                self._note(found[0], peer[0])
                udp.sendto(fill(found[0], len(payload), reply=True), peer)

    def _note_icmp(self, icmp: socket.socket, family: Family) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            packet, peer = icmp.recvfrom(1 << 16)
            message = packet[(packet[0] & 0xF) * 4 :] if family is Family.V4 else packet
            found = read_token(message)
            if found is not None and message[0] == _ECHO_REQUEST[family]:
                self._note(found[0], peer[0])


def _open(family: Family) -> tuple[socket.socket, socket.socket, socket.socket]:
    """A listening TCP, a bound UDP and a raw ICMP socket of the calling thread's namespace."""
    af = address_family(family)
    anywhere = "0.0.0.0" if family is Family.V4 else "::"  # noqa: S104  (of a lab's namespace)
    tcp = socket.socket(af, socket.SOCK_STREAM)
    udp = socket.socket(af, socket.SOCK_DGRAM)
    for opened in (tcp, udp):
        if family is Family.V6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((anywhere, PORT))
    tcp.listen(64)
    kind = socket.IPPROTO_ICMP if family is Family.V4 else socket.IPPROTO_ICMPV6
    icmp = socket.socket(af, socket.SOCK_RAW, kind)
    for opened in (tcp, udp, icmp):
        forbid_fragments(opened, family)
        opened.setblocking(False)
    return tcp, udp, icmp
