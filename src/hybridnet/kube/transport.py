"""HTTP to one API server: connections, credentials, and what became of a request, as typed errors.

A write is sent once and never again by itself, because only the caller can tell whether it was done: that includes
the silent second attempt that HTTP libraries make on a connection that died. Sockets give up on a peer that
vanished without a word after half a minute. Certificates are looked at again every few seconds, and at once
when the server refuses them; connections that are open stay open.
"""

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import structlog

from hybridnet.kube.config import Config
from hybridnet.kube.errors import ApiError, ConfigError, TooManyRequests, Unavailable, error_of

log = structlog.get_logger(__name__)

USER_AGENT = "hybridnet"
CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 30.0
PEER_TIMEOUT_SECONDS = 30
RECHECK_SECONDS = 10.0
"""How often files of certificates are looked at."""
BUSY_ATTEMPTS = 5
LONGEST_BUSY_SECONDS = 10.0
JSON = "application/json"

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_SECONDS * 1000),
)


class Transport:
    """One connection pool. Opened by the first request."""

    def __init__(self, config: Config, *, connections: int) -> None:
        """*connections* bounds the requests in flight, watches included."""
        self.config = config
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._tls: ssl.SSLContext | bool = True
        self._stamp: object = None
        self._checked = 0.0

    def open(self) -> None:
        """Read the credentials. ConfigError when they are not usable."""
        self._closed = False
        if self._session is None:
            self._tls = self.config.ssl_context() or True
            self._stamp, self._checked = self.config.stamp(), time.monotonic()
            self._session = _session(self._connections)

    async def close(self) -> None:
        """Close all connections; what is on its way fails with Unavailable."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """One request and the body of its answer. ApiError."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        async with self.exchange(method, path, query, body, content_type, timeout) as response:
            return await response.read()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  (aiohttp's own notion of it)
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; its answer is open as long as the context, and a failure in it is one of the request.

        *timeout* may be longer than REQUEST_SECONDS for a body that comes in pieces; the answer's head may not.
        A server that is too busy to look at it (429) is asked again, a few times, when it says.
        """
        what = f"{method} {path}"
        options: dict[str, Any] = {"params": query or {}, "data": body, "timeout": timeout}
        try:
            for attempt in range(1, BUSY_ATTEMPTS + 1):
                async with AsyncExitStack() as stack:
                    request = self._pool().request(
                        method,
                        self.config.server + path,
                        headers=self._headers(content_type),
                        **options,
                        **self._security(),
                    )
                    async with asyncio.timeout(REQUEST_SECONDS):
                        response = await stack.enter_async_context(request)
                    if response.status < 300:
                        yield response
                        return
                    refusal = await self._refusal(response, what)
                if not isinstance(refusal, TooManyRequests) or attempt == BUSY_ATTEMPTS:
                    raise refusal
                await _pause(refusal)
        except TimeoutError as error:
            raise Unavailable(0, "Timeout", f"{self.config.server} did not answer {what} in time") from error
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            self._checked = 0.0
            raise self._unreachable(what, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(what, error) from error
        except ConfigError as error:
            raise Unavailable(0, "Credentials", f"{what} was not sent: {error}") from error

    def _pool(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Unavailable(0, "Closed", "the client is closed")
        self.open()
        if self._session is None:
            raise Unavailable(0, "Closed", "the client is closed")
        return self._session

    async def _refusal(self, response: aiohttp.ClientResponse, what: str) -> ApiError:
        if response.status == 401:
            self._checked = 0.0
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else 0.0
        return error_of(response.status, await response.read(), what, retry_after=seconds)

    def _unreachable(self, what: str, error: Exception) -> ApiError:
        return Unavailable(
            0,
            "Unreachable",
            f"{what}: {error or type(error).__name__}: is the API server {self.config.server} "
            f"(from {self.config.origin}) up and reachable from here?",
        )

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": JSON, "Content-Type": content_type}
        if token := self.config.bearer():
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _security(self) -> dict[str, Any]:
        """TLS for a request: with certificates as they are now, or as they were when those are unusable."""
        now = time.monotonic()
        if now - self._checked >= RECHECK_SECONDS:
            self._checked = now
            if (stamp := self.config.stamp()) != self._stamp:
                self._renew(stamp)
        return {"ssl": self._tls, "server_hostname": self.config.server_name or None}

    def _renew(self, stamp: object) -> None:
        try:
            self._tls = self.config.ssl_context() or True
        except ConfigError as error:  # half written: looked at again with the next request
            log.warning("new certificates not usable yet", origin=self.config.origin, error=str(error))
            return
        self._stamp = stamp
        log.info("certificates read again", origin=self.config.origin)


def _session(connections: int) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=60, socket_factory=_socket)
    session = aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},  # gzip costs more than a LAN
    )
    session._retry_connection = False  # it would send PUT and DELETE twice
    return session


async def _pause(refusal: ApiError) -> None:
    seconds = min(refusal.retry_after or 1.0, LONGEST_BUSY_SECONDS)
    await asyncio.sleep(seconds * random.uniform(1.0, 1.5))  # noqa: S311  (spreads the next attempts)


def _socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket that notices a peer that has vanished."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    for level, option, value in _KEEPALIVE:
        made.setsockopt(level, option, value)
    return made
