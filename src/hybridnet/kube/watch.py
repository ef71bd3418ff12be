"""The lines of a watch: changes after a resourceVersion, one at a time, until the server or the network ends it.

Bookmarks keep the version fresh when nothing that matches happens; for a kind that nobody changes they come every
two minutes, so silence proves nothing. A vanished peer is noticed by the probes of TCP; what TCP does not see (a
proxy whose backend is gone) ends a little after the time at which the server would have ended the watch itself.
"""

import random
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from hybridnet.kube import codec
from hybridnet.kube.errors import Malformed, error_of
from hybridnet.model.meta import KubeObject
from hybridnet.model.resource import Resource

T = TypeVar("T", bound=KubeObject)

LIFETIME_SECONDS = (240, 480)
"""The server ends a watch after a time in this range."""
GRACE_SECONDS = 15.0
"""How much later we do."""


class Change(Struct, Generic[T], frozen=True):
    """One line: ADDED, MODIFIED, DELETED with an object or what was wrong with it; BOOKMARK with neither."""

    type: str
    resource_version: str
    object: T | None = None
    rejected: codec.Rejected | None = None


def watch_query(resource_version: str) -> tuple[dict[str, str], float]:
    """The query of a watch after *resource_version*, and the longest silence to bear, in seconds."""
    lifetime = random.randint(*LIFETIME_SECONDS)  # noqa: S311  (spreads reconnections)
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": resource_version,
        "timeoutSeconds": str(lifetime),
    }
    return query, lifetime + GRACE_SECONDS


async def read_changes(
    resource: Resource[T], chunks: AsyncIterable[bytes]
) -> AsyncGenerator[Change[T], None]:
    """Changes, one for each line, however long; lines may be cut anywhere into *chunks*.

    Raises what an ERROR line says: mostly Expired.
    """
    rest: list[bytes] = []
    async for chunk in chunks:
        *lines, tail = chunk.split(b"\n")
        for line in lines:
            whole = b"".join((*rest, line)) if rest else line
            rest.clear()
            if whole:
                yield _parse(resource, whole)
        if tail:
            rest.append(tail)


def _parse(resource: Resource[T], line: bytes) -> Change[T]:
    try:
        event = codec.RAW_EVENT.decode(line)
    except msgspec.DecodeError as error:
        raise Malformed(200, "Malformed", f"a line of the watch of {resource.plural}: {error}") from error
    if event.type == "ERROR":
        raise error_of(0, bytes(event.object), f"watch {resource.plural}")
    if event.type == "BOOKMARK":
        return Change("BOOKMARK", codec.identify(event.object).resource_version)
    try:
        obj = codec.decode(resource, event.object)
    except Malformed as error:
        version = codec.identify(event.object).resource_version
        return Change(event.type, version, rejected=codec.reject(event.object, error))
    return Change(event.type, obj.metadata.resource_version, obj)
