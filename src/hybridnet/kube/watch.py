"""A watch: changes after a resourceVersion, one at a time, until the server or the network ends it.

Bookmarks keep the version fresh when nothing that matches happens, and prove that the connection lives: the server
sends one a minute, so a silence of 150 s is a dead peer, not a quiet one.
"""

import random
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from hybridnet.kube import codec
from hybridnet.kube.client import Client
from hybridnet.kube.errors import ApiError, Expired, error_of
from hybridnet.model.meta import KubeObject
from hybridnet.model.resource import Resource

T = TypeVar("T", bound=KubeObject)

SILENCE_SECONDS = 150.0
_LIFETIME_SECONDS = (240, 480)


class Change(Struct, Generic[T], frozen=True):
    """One line: ADDED, MODIFIED, DELETED with an object or what was wrong with it; BOOKMARK with neither."""

    type: str
    resource_version: str
    object: T | None = None
    rejected: codec.Rejected | None = None


async def watch(
    client: Client,
    resource: Resource[T],
    resource_version: str,
    namespace: str = "",
    *,
    label_selector: str = "",
    field_selector: str = "",
) -> AsyncIterator[Change[T]]:
    """Changes after *resource_version*. Ends when the server ends it; Expired, Unavailable, Forbidden."""
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": resource_version,
        "timeoutSeconds": str(random.randint(*_LIFETIME_SECONDS)),  # noqa: S311  (spreads reconnections)
    }
    query |= {k: v for k, v in (("labelSelector", label_selector), ("fieldSelector", field_selector)) if v}
    async with client.stream(resource.path(namespace), query, SILENCE_SECONDS) as stream:
        async for line in _lines(stream):
            yield _parse(resource, line)


def _parse(resource: Resource[T], line: bytes) -> Change[T]:
    event = codec.RAW_EVENT.decode(line)
    if event.type == "ERROR":
        raise _failure(event)
    if event.type == "BOOKMARK":
        return Change("BOOKMARK", codec.NAMED.decode(event.object).metadata.resource_version)
    try:
        obj = codec.decode(resource, event.object)
    except msgspec.DecodeError as error:
        version = codec.NAMED.decode(event.object).metadata.resource_version
        return Change(event.type, version, rejected=codec.reject(event.object, str(error)))
    return Change(event.type, obj.metadata.resource_version, obj)


def _failure(event: codec.RawEvent) -> ApiError:
    status = codec.WATCH_STATUS.decode(event.object)
    if status.code == 410 or status.reason in ("Expired", "Gone"):
        return Expired(410, status.reason, status.message)
    return error_of(status.code or 500, bytes(event.object), "watch")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own reader refuses those above its buffer."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
