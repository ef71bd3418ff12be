"""The unix socket that the CNI executable speaks to: one HTTP request a call.

Root only (mode 0600 in a folder of mode 0700). A caller that goes away cancels its ADD, which then undoes itself.
Errors are CNI errors with the status 500; a failure of our own is logged with its traceback and reported as
such, never as a hang.
"""

import asyncio
import socket
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from hybridnet.agent import errors, protocol
from hybridnet.agent.attachment import Attachments

log = structlog.get_logger(__name__)

SHUTDOWN_SECONDS = 2.0
"""How long calls may go on when the agent stops; an ADD that still waits for addresses is undone then."""

_ENCODER = msgspec.json.Encoder()
_BODY_LIMIT = 1 << 20
_HEADER_LIMIT = 1 << 16
"""As much as the executable sends."""


class CniServer:
    """Serves calls on *path* from :meth:`start` on, until :meth:`stop`."""

    def __init__(self, path: Path, attachments: Attachments, patience: float) -> None:
        """*patience*: seconds that ADD waits for :meth:`set_ready`."""
        self._path = path
        self._patience = patience
        self._attachments = attachments
        self._ready = asyncio.Event()
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_post("/cni", self._handle)
        self._runner = web.AppRunner(
            application,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=SHUTDOWN_SECONDS,
            max_line_size=_HEADER_LIMIT,
            max_field_size=_HEADER_LIMIT,
        )

    def set_ready(self) -> None:
        """The node's data plane is in place: ADD may go ahead."""
        self._ready.set()

    async def start(self) -> None:
        """Take the socket over from whatever process had it before. OSError when it cannot be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=512).start()
        temporary.rename(self._path)

    async def stop(self) -> None:
        """Finish what is being answered, take no more."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        version = "1.0.0"
        try:
            call = protocol.parse_call(request.headers, await request.read())
            version = call.configuration.version
            answer = await self._dispatch(call)
        except errors.CniError as error:
            log.warning("call refused", command=request.headers.get("CNI-Command"), error=error.message)
            return _json(protocol.failure(error, version), 500)
        except Exception as error:  # the runtime must hear of any failure, and so must the log
            log.exception("call failed", command=request.headers.get("CNI-Command"))
            cni = errors.CniError(errors.INTERNAL, f"the agent failed: {error!r}: look at its log")
            return _json(protocol.failure(cni, version), 500)
        return _json(answer, 200) if answer is not None else web.Response(status=204)

    async def _dispatch(self, call: protocol.Call) -> dict[str, object] | None:
        if call.command == "DEL":
            await self._attachments.delete(call)
        elif call.command == "STATUS":
            self._check_ready(errors.NOT_AVAILABLE)
        elif call.command == "GC":
            await self._attachments.collect(call)
        elif call.command == "CHECK":
            await self._attachments.check(call)
        else:
            await self._wait_ready()
            endpoint = await self._attachments.add(call)
            log.info(
                "pod attached",
                pod=f"{endpoint.namespace}/{endpoint.pod}",
                addresses=[str(a.address) for a in endpoint.addresses],
                device=endpoint.device,
            )
            return protocol.result(endpoint, call.configuration.version)
        return None

    async def _wait_ready(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._ready.wait()
        except TimeoutError:
            self._check_ready(errors.TRY_AGAIN_LATER)

    def _check_ready(self, code: int) -> None:
        if not self._ready.is_set():
            raise errors.NotReady(
                "the agent has not read the cluster's networks yet: the API server is away or refuses it; "
                "see the agent's log",
                code,
            )


def _json(body: dict[str, object], status: int) -> web.Response:
    return web.Response(body=_ENCODER.encode(body), status=status, content_type="application/json")
