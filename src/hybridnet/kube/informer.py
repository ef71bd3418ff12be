"""A local copy of one kind of object, kept current: list, watch, and list again when it must.

The promise: handlers see every object's changes in order, a deletion that happened while the watch was away comes
as DELETED after the next list, and an API server that is away for hours costs nothing but staleness. An object
that cannot be decoded is set aside in ``rejected`` and stops no other; one that was good before stays as it was.
Handlers run on the event loop and must be quick: they put a key into a queue.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Generic, TypeVar

import structlog
from msgspec import Struct

from hybridnet.kube.client import Client
from hybridnet.kube.codec import Rejected
from hybridnet.kube.errors import ApiError, Expired
from hybridnet.kube.watch import Change, watch
from hybridnet.model.meta import KubeObject
from hybridnet.model.resource import Resource

log = structlog.get_logger(__name__)

T = TypeVar("T", bound=KubeObject)
ObjectKey = tuple[str, str]
BACKOFF_SECONDS = (0.1, 5.0)
"""First and longest pause between attempts: a returned API server is noticed within five seconds."""


class EventKind(Enum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Event(Struct, Generic[T], frozen=True):
    """A change; *old* is the former state, if there was one."""

    kind: EventKind
    object: T
    old: T | None = None


Handler = Callable[[Event[T]], None]
Index = Callable[[T], list[str]]


class Informer(Generic[T]):
    """The copy of all objects of one kind that match the selectors."""

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, Index[T]] | None = None,
    ) -> None:
        self.resource = resource
        self.rejected: dict[ObjectKey, str] = {}
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._objects: dict[ObjectKey, T] = {}
        self._functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[ObjectKey, T]]] = {
            name: defaultdict(dict) for name in self._functions
        }
        self._handlers: list[Handler[T]] = []
        self._synced = asyncio.Event()

    @property
    def synced(self) -> bool:
        """Whether a first list has been read."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def add_handler(self, handler: Handler[T]) -> None:
        """Call *handler* for every change from now on; what is there already is not repeated."""
        self._handlers.append(handler)

    def get(self, name: str, namespace: str = "") -> T | None:
        """One object."""
        return self._objects.get((namespace, name))

    def items(self) -> list[T]:
        """All objects."""
        return list(self._objects.values())

    def by_index(self, index: str, key: str) -> list[T]:
        """Objects that the index function gave *key* for."""
        return list(self._indexes[index].get(key, {}).values())

    def __len__(self) -> int:
        return len(self._objects)

    async def run(self) -> None:
        """Keep the copy current until cancelled."""
        pause, version = BACKOFF_SECONDS[0], ""
        while True:
            try:
                version = await self._list()
                pause = BACKOFF_SECONDS[0]
                version = await self._follow(version)
            except Expired as error:
                log.info("watch expired, listing again", kind=self.resource.kind, error=error.message)
                await asyncio.sleep(BACKOFF_SECONDS[0])
            except ApiError as error:
                log.warning("list failed", kind=self.resource.kind, error=error.message, retry_in=pause)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads reconnections)
                pause = min(pause * 2, BACKOFF_SECONDS[1])

    async def _follow(self, version: str) -> str:
        """Watch from *version* on, over any number of connections. Raises Expired only."""
        pause = BACKOFF_SECONDS[0]
        while True:
            try:
                async for change in watch(
                    self._client,
                    self.resource,
                    version,
                    self._namespace,
                    label_selector=self._label_selector,
                    field_selector=self._field_selector,
                ):
                    version = change.resource_version or version
                    pause = BACKOFF_SECONDS[0]
                    self._take(change)
            except Expired:
                raise
            except ApiError as error:
                log.warning("watch lost", kind=self.resource.kind, error=error.message, retry_in=pause)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads reconnections)
                pause = min(pause * 2, BACKOFF_SECONDS[1])

    async def _list(self) -> str:
        found = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        rejected = {(r.namespace, r.name): r.reason for r in found.rejected}
        for bad in found.rejected:
            self._set_aside(bad)
        self.rejected = rejected
        new = {obj.key: obj for obj in found.items}
        for key in self._objects.keys() - new.keys() - rejected.keys():
            self._delete(self._objects[key])
        for obj in new.values():
            self._put(obj)
        self._synced.set()
        return found.resource_version

    def _take(self, change: Change[T]) -> None:
        if change.rejected is not None:
            self._set_aside(change.rejected)
            return
        obj = change.object
        if obj is None:
            return
        self.rejected.pop(obj.key, None)
        if change.type == "DELETED":
            self._delete(obj)
        else:
            self._put(obj)

    def _set_aside(self, bad: Rejected) -> None:
        key = bad.namespace, bad.name
        if self.rejected.get(key) != bad.reason:
            log.error(
                "object set aside", kind=self.resource.kind, namespace=key[0], name=key[1], error=bad.reason
            )
        self.rejected[key] = bad.reason

    def _put(self, obj: T) -> None:
        key = obj.key
        old = self._objects.get(key)
        if old is not None and old.metadata.resource_version == obj.metadata.resource_version:
            return
        self._unindex(key, old)
        self._objects[key] = obj
        for name, function in self._functions.items():
            for value in function(obj):
                self._indexes[name][value][key] = obj
        self._tell(Event(EventKind.MODIFIED if old is not None else EventKind.ADDED, obj, old))

    def _delete(self, obj: T) -> None:
        old = self._objects.pop(obj.key, None)
        if old is None:
            return
        self._unindex(obj.key, old)
        self._tell(Event(EventKind.DELETED, obj, old))

    def _unindex(self, key: ObjectKey, old: T | None) -> None:
        if old is None:
            return
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(old):
                index[value].pop(key, None)
                if not index[value]:
                    del index[value]

    def _tell(self, event: Event[T]) -> None:
        for handler in self._handlers:
            try:
                handler(event)
            except Exception:
                log.exception("handler failed", kind=self.resource.kind, object=event.object.key)
