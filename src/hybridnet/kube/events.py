"""Events that ``kubectl describe`` shows. Never in the way: a bounded queue, best effort, repeats are counted.

The same event of the same object within ten minutes raises ``count`` instead of making a new object, so a pod that
waits for hours has one line, not thousands.
"""

import asyncio
import time
from datetime import UTC, datetime

import structlog
from msgspec import Struct

from hybridnet.kube.client import Client
from hybridnet.kube.errors import ApiError, NotFound
from hybridnet.model.core import Event, EventSource, ObjectReference
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import EVENTS

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 4096
WINDOW_SECONDS = 600.0
_WRITERS = 4
_MESSAGE_LIMIT = 1024

_Key = tuple[str, str, str, str]


class _Series(Struct):
    name: str
    count: int
    first: str
    at: float


class EventRecorder:
    """Records events of one component."""

    def __init__(self, client: Client, component: str) -> None:
        self._client = client
        self._component = component
        self._queue: asyncio.Queue[tuple[ObjectReference, str, str, str]] = asyncio.Queue(QUEUE_LIMIT)
        self._series: dict[_Key, _Series] = {}
        self._writers: set[asyncio.Task[None]] = set()

    def event(self, target: ObjectReference, kind: str, reason: str, message: str) -> None:
        """Record an event of type *kind* (Normal or Warning) about *target*. Returns at once, never raises."""
        try:
            self._queue.put_nowait((target, kind, reason, message[:_MESSAGE_LIMIT]))
        except asyncio.QueueFull:
            log.warning("event dropped", object=target.name, reason=reason)
        if len(self._writers) < _WRITERS and self._queue.qsize() > len(self._writers):
            task = asyncio.get_running_loop().create_task(self._write_all())
            self._writers.add(task)
            task.add_done_callback(self._writers.discard)

    async def flush(self) -> None:
        """Wait until everything recorded so far was written or given up."""
        while self._writers:
            await asyncio.gather(*self._writers)

    async def _write_all(self) -> None:
        while not self._queue.empty():
            target, kind, reason, message = self._queue.get_nowait()
            try:
                await self._write(target, kind, reason, message)
            except ApiError as error:
                log.warning("event not written", object=target.name, reason=reason, error=error.message)

    async def _write(self, target: ObjectReference, kind: str, reason: str, message: str) -> None:
        key = target.uid, kind, reason, message
        series = self._series.get(key)
        now = time.monotonic()
        if series is not None and now - series.at < WINDOW_SECONDS:
            series.count += 1
            series.at = now
            if await self._count(target, series):
                return
        if len(self._series) > QUEUE_LIMIT:
            self._series = {k: s for k, s in self._series.items() if now - s.at < WINDOW_SECONDS}
        stamp = _now()
        name = f"{target.name[:200]}.{time.time_ns():x}"
        self._series[key] = _Series(name, 1, stamp, now)
        await self._client.create(EVENTS, self._make(target, kind, reason, message, name, stamp))

    async def _count(self, target: ObjectReference, series: _Series) -> bool:
        patch = {"count": series.count, "lastTimestamp": _now()}
        try:
            await self._client.patch(EVENTS, series.name, patch, target.namespace or "default")
        except NotFound:
            return False
        return True

    def _make(
        self, target: ObjectReference, kind: str, reason: str, message: str, name: str, stamp: str
    ) -> Event:
        return Event(
            metadata=ObjectMeta(name=name, namespace=target.namespace or "default"),
            involved_object=target,
            type=kind,
            reason=reason,
            message=message,
            source=EventSource(component=self._component),
            first_timestamp=stamp,
            last_timestamp=stamp,
            count=1,
        )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
