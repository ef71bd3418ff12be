"""Events that ``kubectl describe`` shows. Never in the way: bounded, best effort, repeats are counted.

The same event of the same object within ten minutes raises ``count`` instead of making a new object, so a pod that
waits for hours has one line, not thousands; repeats are gathered for some seconds, so they cost few writes. One
writer keeps the order. While the API server is away events wait; beyond the limit the newest are dropped and told
of in the log.
"""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from msgspec import Struct

from hybridnet.kube.backoff import Backoff
from hybridnet.kube.client import Client
from hybridnet.kube.errors import AlreadyExists, ApiError, NotFound, TooManyRequests, Unavailable
from hybridnet.model.core import Event, EventSource, ObjectReference
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import EVENTS

log = structlog.get_logger(__name__)

LIMIT = 4096
"""Most distinct events that wait or are remembered."""
WINDOW_SECONDS = 600.0
GATHER_SECONDS = 2.0
_MESSAGE_LIMIT = 1024
_NAME_LIMIT = 200


class _Key(NamedTuple):
    """What makes two events the same."""

    target: ObjectReference
    kind: str
    reason: str
    message: str


class _Waiting(Struct):
    name: str
    """Of the object to be: the same at a second attempt, so an event whose write was ambiguous is not doubled."""
    count: int
    first: str
    last: str


class _Written(Struct):
    """An event that is in the API."""

    name: str
    count: int
    at: float


class EventRecorder:
    """Records events of one component. Used from one event loop."""

    def __init__(self, client: Client, component: str) -> None:
        """*component* is what ``kubectl describe`` shows as the event's origin."""
        self.dropped = 0
        """Events that were lost because too many waited."""
        self._client = client
        self._component = component
        self._waiting: dict[_Key, _Waiting] = {}
        self._written: dict[_Key, _Written] = {}
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def event(self, target: ObjectReference, kind: str, reason: str, message: str) -> None:
        """Record an event of type *kind* (Normal or Warning) about *target*. Returns at once, never raises."""
        key = _Key(target, kind, reason, message[:_MESSAGE_LIMIT])
        now = _now()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.count += 1
            waiting.last = now
        elif len(self._waiting) >= LIMIT:
            self._drop(key)
        else:
            name = f"{target.name[:_NAME_LIMIT]}.{time.time_ns():x}"
            self._waiting[key] = _Waiting(name, 1, now, now)
            if key not in self._written:
                self._hurry.set()
        self._ensure_writer()

    async def flush(self, seconds: float = 5.0) -> None:
        """Write what waits, for at most *seconds*; for the end of a process."""
        try:
            async with asyncio.timeout(seconds):
                while self._writer is not None and not self._writer.done():
                    self._hurry.set()
                    await asyncio.wait((self._writer,), timeout=0.05)
        except TimeoutError:
            log.warning("events not written", count=len(self._waiting))

    def _drop(self, key: _Key) -> None:
        if self.dropped % LIMIT == 0:
            log.warning("events dropped: too many wait", object=key.target.name, reason=key.reason)
        self.dropped += 1

    def _ensure_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all(), name="events")

    async def _write_all(self) -> None:
        backoff = Backoff("writing events")
        while self._waiting:
            await self._gather()
            for key in list(self._waiting):
                try:
                    await self._write(key)
                except (Unavailable, TooManyRequests) as error:
                    if error.reason == "Closed":
                        return
                    await backoff.pause(error)
                else:
                    backoff.reset()

    async def _gather(self) -> None:
        """Wait a little for more repeats, unless something new is there."""
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._hurry.wait()
        except TimeoutError:
            return
        finally:
            self._hurry.clear()

    async def _write(self, key: _Key) -> None:
        """Write one event; Unavailable and TooManyRequests leave it waiting."""
        waiting = self._waiting[key]
        count, known = waiting.count, self._known(key)
        try:
            if known is None or not await self._raise_count(key, known, waiting.last, count):
                await self._create(key, waiting, count)
        except ApiError as error:
            if isinstance(error, Unavailable | TooManyRequests):
                raise
            log.warning("event not written", object=key.target.name, reason=key.reason, error=error.message)
        del self._waiting[key]
        if waiting.count > count:  # repeats that came meanwhile
            now = _now()
            self._waiting[key] = _Waiting(f"{waiting.name}.1", waiting.count - count, now, now)

    def _known(self, key: _Key) -> _Written | None:
        now = time.monotonic()
        if len(self._written) > LIMIT:
            self._written = {k: w for k, w in self._written.items() if now - w.at < WINDOW_SECONDS}
        written = self._written.get(key)
        return written if written and now - written.at < WINDOW_SECONDS else None

    async def _raise_count(self, key: _Key, written: _Written, last: str, count: int) -> bool:
        """Count *count* repeats of an event; False when it is there no more."""
        patch = {"count": written.count + count, "lastTimestamp": last}
        try:
            await self._client.patch(EVENTS, written.name, patch, key.target.namespace or "default")
        except NotFound:
            return False
        written.count, written.at = written.count + count, time.monotonic()
        return True

    async def _create(self, key: _Key, waiting: _Waiting, count: int) -> None:
        event = Event(
            metadata=ObjectMeta(name=waiting.name, namespace=key.target.namespace or "default"),
            involved_object=key.target,
            type=key.kind,
            reason=key.reason,
            message=key.message,
            source=EventSource(component=self._component),
            first_timestamp=waiting.first,
            last_timestamp=waiting.last,
            count=count,
        )
        with contextlib.suppress(AlreadyExists):  # an earlier attempt of ours whose answer was lost
            await self._client.create(EVENTS, event)
        self._written[key] = _Written(waiting.name, count, time.monotonic())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
