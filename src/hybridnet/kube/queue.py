"""A work queue of keys: each at most once in the queue, at most one worker on it, failures later and later.

A key that is added while a worker is on it runs once more afterwards, so no change is missed and none is worked on
twice at once. The number of waiting keys is bounded by the number of objects, so the queue needs no other bound.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from hybridnet.kube.errors import ApiError, Conflict

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_EXPONENT = 16


class WorkQueue(Generic[K]):
    """Keys to work on. Used from one event loop."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        """Keys in ``_ready``."""
        self._active: set[K] = set()
        self._again: set[K] = set()
        """Active keys that were added meanwhile."""
        self._attempts: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Keys that wait, are worked on, or have a pause."""
        return len(self._waiting) + len(self._active) + len(self._timers)

    def add(self, key: K) -> None:
        """Work on *key* as soon as possible; an announced retry of it becomes now."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    async def get(self) -> K:
        """The next key, now active until :meth:`done` or :meth:`retry`."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._active.add(key)
        return key

    def done(self, key: K) -> None:
        """Work on *key* ended well; its failures are forgotten."""
        self._attempts.pop(key, None)
        self._finish(key)

    def retry(self, key: K) -> float:
        """Work on *key* failed: again after a pause, which is returned in seconds."""
        attempts = self._attempts.get(key, 0)
        self._attempts[key] = attempts + 1
        pause = float(min(FIRST_PAUSE_SECONDS * 2 ** min(attempts, _LONGEST_EXPONENT), LONGEST_PAUSE_SECONDS))
        self._finish(key)
        if key not in self._waiting:
            self._timers[key] = asyncio.get_running_loop().call_later(pause, self.add, key)
        return pause

    async def run_workers(self, count: int, reconcile: Callable[[K], Awaitable[None]]) -> None:
        """Work with *count* workers until cancelled. Whatever *reconcile* raises means: try again later."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._work(reconcile))

    def _finish(self, key: K) -> None:
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    async def _work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        while True:
            key = await self.get()
            try:
                await reconcile(key)
            except Conflict as error:
                log.debug("conflict", key=key, error=error.message, retry_in=self.retry(key))
            except ApiError as error:
                log.warning("failed", key=key, error=error.message, retry_in=self.retry(key))
            except Exception:
                log.exception("failed", key=key, retry_in=self.retry(key))
            else:
                self.done(key)
