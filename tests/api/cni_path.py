"""The way from a node's namespace to the API server: it can hang, and it can be cut.

It listens on the API server's own address and port inside the namespace, so a kubeconfig leads through it as it
is. A thread with an event loop of its own carries the bytes.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path

from hybridnet.kernel.namespace import Namespace

HOST = "127.0.0.1"


class ApiPath:
    """Forwards what comes to the port inside the namespace at *path*, until closed."""

    def __init__(self, path: Path, port: int) -> None:
        self._namespace = path
        self._port = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-path", daemon=True)
        self._thread.start()
        self.mend()

    def cut(self) -> None:
        """Connections end, and new ones are refused."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()

    def mend(self) -> None:
        """Connections are taken."""
        with Namespace.open(self._namespace) as inside:
            listener = inside.run(lambda: socket.create_server((HOST, self._port), backlog=64))
        asyncio.run_coroutine_threadsafe(self._serve(listener), self._loop).result()

    def hang(self) -> None:
        """Connections are taken and stay open, nothing comes or goes."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        """Everything flows again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        """End connections and thread."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._forward, sock=listener)

    async def _end(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        far_reader, far_writer = await asyncio.open_connection(HOST, self._port)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = self._loop.create_task(self._copy(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            try:
                while data := await source.read(65536):
                    await self._flowing.wait()
                    target.write(data)
                    await target.drain()
            finally:
                target.close()
