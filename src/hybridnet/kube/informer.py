"""A local copy of one kind of object, kept current: list, watch, and list again when it must.

The promise: handlers see every object's changes in order; a deletion that happened while the watch was away comes
as DELETED after the next list; an API server that is away for hours costs nothing but staleness, and is noticed
within seconds when it is back. An object that cannot be decoded is set aside in ``rejected`` and stops no other;
one that was good before stays as it was. Handlers run on the event loop and must be quick: they put a key into a
queue; one that raises is logged and does not stop the others.

The first list asks etcd's present state and not a server's cache, so that a restart never goes back in time.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Generic, NoReturn, TypeVar

import structlog
from msgspec import Struct

from hybridnet.kube.backoff import Backoff
from hybridnet.kube.client import Client, ObjectList
from hybridnet.kube.codec import Rejected
from hybridnet.kube.errors import ApiError, Expired, Unavailable
from hybridnet.kube.store import Index, ObjectKey, Store
from hybridnet.kube.watch import Change
from hybridnet.model.meta import KubeObject
from hybridnet.model.resource import Resource

log = structlog.get_logger(__name__)

T = TypeVar("T", bound=KubeObject)

SHORTEST_SECONDS = 1.0
"""A watch that ends sooner is trouble and not the end that the server announced."""


class EventKind(StrEnum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Event(Struct, Generic[T], frozen=True):
    """A change; *old* is the former state, if there was one.

    Of a deletion that was not seen happening, *object* is the last known state.
    """

    kind: EventKind
    object: T
    old: T | None = None


Handler = Callable[[Event[T]], None]


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
        """(namespace, name) -> why the object cannot be used."""
        self.resource_version = ""
        """How far the copy is."""
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._store: Store[T] = Store(indexes or {})
        self._handlers: list[Handler[T]] = []
        self._synced = asyncio.Event()
        self._backoff = Backoff(f"watch of {resource.plural}")

    @property
    def synced(self) -> bool:
        """Whether a first list has been read."""
        return self._synced.is_set()

    @property
    def trouble(self) -> str:
        """Why the copy is not being kept current; empty when it is, as far as we know."""
        return self._backoff.trouble

    async def wait_synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def add_handler(self, handler: Handler[T]) -> None:
        """Call *handler* for every change from now on, and now with ADDED for everything that is there."""
        self._handlers.append(handler)
        for obj in self._store.items():
            self._call(handler, Event(EventKind.ADDED, obj))

    def get(self, name: str, namespace: str = "") -> T | None:
        """One object."""
        return self._store.get((namespace, name))

    def items(self) -> list[T]:
        """All objects."""
        return self._store.items()

    def by_index(self, index: str, key: str) -> list[T]:
        """Objects that the index function gave *key* for."""
        return self._store.by_index(index, key)

    def __len__(self) -> int:
        return len(self._store)

    async def run(self) -> NoReturn:
        """Keep the copy current until cancelled."""
        backoff = self._backoff
        interrupted = False
        while True:
            try:
                if interrupted:
                    await self._check_time()
                    interrupted = False
                if not self.resource_version:
                    await self._list()
                    backoff.recovered()
                await self._follow(backoff)
            except Expired as error:
                log.info("watch expired, listing again", kind=self.resource.kind, error=error.message)
                self.resource_version = ""
                await backoff.pause()
            except ApiError as error:
                interrupted = True
                await backoff.pause(error)

    async def _follow(self, backoff: Backoff) -> None:
        """One watch, from where the copy is. Raises when it ends otherwise than the server announces."""
        started = asyncio.get_running_loop().time()
        async for change in self._client.watch(
            self.resource,
            self.resource_version,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            on_open=backoff.recovered,
        ):
            backoff.reset()
            self._take(change)
            self.resource_version = change.resource_version or self.resource_version
        if asyncio.get_running_loop().time() - started < SHORTEST_SECONDS:
            raise Unavailable(200, "Ended", "the server ended the watch as soon as it was open")

    async def _check_time(self) -> None:
        """After an outage: a server that is behind us was restored from a backup, and would tell us nothing."""
        if self.resource_version:
            newest = await self._client.newest_version(self.resource, self._namespace)
            if int(newest) < int(self.resource_version):
                raise Expired(
                    410, "Restored", f"the server is at {newest}, we are at {self.resource_version}"
                )

    async def _list(self) -> None:
        found = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        self._adopt(found)
        self.resource_version = found.resource_version
        self._synced.set()

    def _adopt(self, found: ObjectList[T]) -> None:
        """Make the copy like the list. What was rejected there keeps its last good state."""
        before, self.rejected = self.rejected, {}
        for bad in found.rejected:
            self._set_aside(bad, before)
        present = {obj.key for obj in found.items} | self.rejected.keys()
        for key in self._store.keys() - present:
            self._remove(key)
        for obj in found.items:
            self._put(obj, before)

    def _take(self, change: Change[T]) -> None:
        if change.rejected is not None:
            bad = change.rejected
            if change.type == EventKind.DELETED:
                self.rejected.pop((bad.namespace, bad.name), None)
                self._remove((bad.namespace, bad.name))
            else:
                self._set_aside(bad, self.rejected)
        elif change.object is not None:
            self.rejected.pop(change.object.key, None)
            if change.type == EventKind.DELETED:
                self._remove(change.object.key, change.object)
            else:
                self._put(change.object, self.rejected)

    def _set_aside(self, bad: Rejected, known: Mapping[ObjectKey, str]) -> None:
        """Note a bad object; it is logged once, until it changes."""
        key = bad.namespace, bad.name
        if known.get(key) != bad.reason:
            log.error(
                "object set aside: correct or delete it",
                kind=self.resource.kind,
                namespace=bad.namespace,
                name=bad.name,
                error=bad.reason,
            )
        self.rejected[key] = bad.reason

    def _put(self, obj: T, known: Mapping[ObjectKey, str]) -> None:
        old = self._store.get(obj.key)
        if old is not None and old.metadata.uid != obj.metadata.uid:
            self._remove(obj.key)  # its deletion was not seen
            old = None
        if old is not None and old.metadata.resource_version == obj.metadata.resource_version:
            return
        try:
            self._store.put(obj)
        except Exception as error:  # noqa: BLE001  (an index function; the object is set aside with the reason)
            self._set_aside(Rejected(*obj.key, f"not indexable: {error!r}"), known)
            return
        self._tell(Event(EventKind.ADDED if old is None else EventKind.MODIFIED, obj, old))

    def _remove(self, key: ObjectKey, last: T | None = None) -> None:
        old = self._store.remove(key)
        if old is not None:
            self._tell(Event(EventKind.DELETED, last or old, old))

    def _tell(self, event: Event[T]) -> None:
        for handler in self._handlers:
            self._call(handler, event)

    def _call(self, handler: Handler[T], event: Event[T]) -> None:
        try:
            handler(event)
        except Exception:
            log.exception(
                "handler failed", kind=self.resource.kind, object=event.object.key, change=event.kind
            )
