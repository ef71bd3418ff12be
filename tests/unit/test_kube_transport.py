"""What becomes of a request when the other side misbehaves. The other side is a real server on loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hybridnet.kube import transport as module
from hybridnet.kube.client import Client
from hybridnet.kube.config import Config
from hybridnet.kube.errors import Forbidden, Invalid, TooManyRequests, Unavailable, UnknownKind
from hybridnet.lab.certificates import Authority
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import IPBLOCKS

BLOCK = IPBlock(metadata=ObjectMeta(name="a", resource_version="1"), spec=IPBlockSpec(cidr="10.0.0.0/24"))
FINE = b'{"metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/24"}}'
Answer = Callable[[str], bytes]
"""What to send for a request line; nothing: the connection is closed without a word."""


def answer(status: int, body: bytes = FINE, *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} X",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """Answers by a function of the request line and remembers those lines."""

    def __init__(self, respond: Answer) -> None:
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.respond = respond

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                await reader.readexactly(int(headers.get("Content-Length", "0")))
                self.seen.append(first.rsplit(" ", 1)[0])
                self.headers.append(headers)
                reply = self.respond(self.seen[-1])
                if not reply:
                    break
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.headers.append({})
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    respond: Answer, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, str]]:
    server = Server(respond)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield server, f"{'https' if context else 'http'}://127.0.0.1:{port}"
    finally:
        listener.close()


def with_server(respond: Answer, scenario: Callable[[Client, Server], Awaitable[None]]) -> None:
    async def run() -> None:
        async with (
            serving(respond) as (server, url),
            Client(Config(server=url, origin="/the/kubeconfig")) as client,
        ):
            await scenario(client, server)

    asyncio.run(run())


WRITES: dict[str, Callable[[Client], Awaitable[object]]] = {
    "POST": lambda client: client.create(IPBLOCKS, BLOCK),
    "PUT": lambda client: client.replace(IPBLOCKS, BLOCK),
    "PATCH": lambda client: client.patch(IPBLOCKS, "a", {}),
    "DELETE": lambda client: client.delete(IPBLOCKS, "a"),
}


@pytest.mark.parametrize("method", WRITES)
def test_a_write_whose_connection_breaks_is_sent_once_and_ambiguous(method: str) -> None:
    async def scenario(client: Client, server: Server) -> None:
        await client.get(IPBLOCKS, "a")  # so that the write meets a connection from the pool
        with pytest.raises(Unavailable, match=r"is the API server .* \(from /the/kubeconfig\)"):
            await WRITES[method](client)
        assert [line.split()[0] for line in server.seen] == ["GET", method]

    with_server(lambda line: answer(200) if line.startswith("GET") else b"", scenario)


def test_a_read_whose_connection_breaks_is_tried_once_more() -> None:
    async def scenario(client: Client, server: Server) -> None:
        assert await client.get(IPBLOCKS, "a")
        assert len(server.seen) == 2

    replies = [answer(200), b""]
    with_server(lambda _: replies.pop(), scenario)


def test_a_busy_server_is_asked_again_when_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def note(refusal: TooManyRequests) -> None:
        pauses.append(refusal.retry_after)

    monkeypatch.setattr(module, "_pause", note)

    async def scenario(client: Client, server: Server) -> None:
        assert await client.create(IPBLOCKS, BLOCK)
        with pytest.raises(TooManyRequests):
            await client.create(IPBLOCKS, BLOCK)

    busy = answer(429, b'{"message": "busy"}', "Retry-After: 3")
    replies = [busy] * module.BUSY_ATTEMPTS + [answer(201), busy, busy]
    with_server(lambda _: replies.pop(), scenario)
    assert pauses[:2] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("status", "body", "error", "told"),
    [
        (403, b'{"reason": "Forbidden", "message": "no"}', Forbidden, "apply the RBAC manifests"),
        (401, b'{"reason": "Unauthorized", "message": "no"}', Forbidden, "renew the credentials"),
        (404, b"404 page not found", UnknownKind, "hybridnet crds"),
        (422, b'{"reason": "Invalid", "message": "cidr is wrong"}', Invalid, "cidr is wrong"),
        (503, b"<html>", Unavailable, "<html>"),
        (500, b"", Unavailable, "HTTP 500"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, body: bytes, error: type[Exception], told: str) -> None:
    async def scenario(client: Client, server: Server) -> None:
        with pytest.raises(error, match=told):
            await client.create(IPBLOCKS, BLOCK)
        assert len(server.seen) == 1

    with_server(lambda _: answer(status, body), scenario)


def test_nobody_there_names_the_server_and_the_kubeconfig() -> None:
    async def run() -> None:
        async with Client(Config(server="http://127.0.0.1:1", origin="/the/kubeconfig")) as client:
            await client.get(IPBLOCKS, "a")

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 \(from /the/kubeconfig\) up and reachable"):
        asyncio.run(run())


def test_a_closed_client_says_so() -> None:
    async def run() -> None:
        async with Client(Config(server="http://127.0.0.1:1", origin="x")) as client:
            pass
        await client.get(IPBLOCKS, "a")

    with pytest.raises(Unavailable, match="the client is closed"):
        asyncio.run(run())


def test_a_new_token_is_used_by_the_next_request(tmp_path: Path) -> None:
    token = tmp_path / "token"

    async def run() -> list[str]:
        async with (
            serving(lambda _: answer(200)) as (server, url),
            Client(Config(server=url, origin="x", token_file=str(token))) as client,
        ):
            for text in ("one", "two"):
                token.write_text(text)
                await client.get(IPBLOCKS, "a")
            token.unlink()
            with pytest.raises(Unavailable, match="token is not readable"):
                await client.get(IPBLOCKS, "a")
            return [headers["Authorization"] for headers in server.headers]

    assert asyncio.run(run()) == ["Bearer one", "Bearer two"]


def test_a_new_authority_is_read_when_the_old_one_no_longer_fits(tmp_path: Path) -> None:
    old, new = Authority.create("old"), Authority.create("new")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(old.pair.certificate)
    new.server("api", ["127.0.0.1"]).write(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    async def run() -> None:
        async with (
            serving(lambda _: answer(200), context) as (_, url),
            Client(Config(server=url, origin="x", ca_file=str(ca))) as client,
        ):
            with pytest.raises(Unavailable, match="certificate verify failed"):
                await client.get(IPBLOCKS, "a")
            ca.write_bytes(new.pair.certificate)
            assert await client.get(IPBLOCKS, "a")

    asyncio.run(run())
