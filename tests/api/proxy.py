"""A path between client and API server that can go dead without a word, as a router does that loses its state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from msgspec import structs

from hybridnet.kube.config import Config


class Proxy:
    """Forwards connections; those that are open can be frozen, new ones go through."""

    def __init__(self, host: str, port: int) -> None:
        self.opened = 0
        self._target = host, port
        self._frozen = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        """From now on the connections that are open neither carry anything nor end."""
        self._frozen.set()
        self._frozen = asyncio.Event()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        frozen = self._frozen
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        for source, target in ((reader, inner_writer), (inner_reader, writer)):
            task = asyncio.create_task(_copy(source, target, frozen))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, frozen: asyncio.Event) -> None:
    try:
        while data := await source.read(65536):
            if frozen.is_set():
                await asyncio.Event().wait()
            target.write(data)
            await target.drain()
        if frozen.is_set():
            await asyncio.Event().wait()
    finally:
        target.close()


@asynccontextmanager
async def proxied(config: Config) -> AsyncIterator[tuple[Proxy, Config]]:
    """A proxy before the server of *config*, and the configuration that leads through it."""
    url = urlsplit(config.server)
    proxy = Proxy(url.hostname or "", url.port or 443)
    listener = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy, structs.replace(config, server=f"https://127.0.0.1:{port}")
    finally:
        listener.close()
        proxy.close()
