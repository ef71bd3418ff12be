"""JSON of the API: decoders built once for each kind, and objects written with their apiVersion and kind.

All decoders are built when this module is imported, on the main thread: msgspec crashes the process when two
threads build or first use one at the same time. A page of a list is decoded at once; only when that fails
each item is decoded by itself, so that one malformed object costs one object.
"""

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from hybridnet.model import resource as resources
from hybridnet.model.meta import KubeObject, ObjectMeta
from hybridnet.model.resource import Resource

T = TypeVar("T", bound=KubeObject)


class Rejected(Struct, frozen=True):
    """An object that could not be decoded."""

    namespace: str
    name: str
    reason: str


class ListMeta(Struct, frozen=True, rename={"resource_version": "resourceVersion", "next_page": "continue"}):
    """metav1.ListMeta."""

    resource_version: str = ""
    next_page: str = ""


class _Page(Struct, Generic[T], frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[T] = field(default_factory=list)


class _RawPage(Struct, frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[Raw] = field(default_factory=list)


class Named(Struct, frozen=True):
    """Any object, as far as its metadata."""

    metadata: ObjectMeta = field(default_factory=ObjectMeta)


class RawEvent(Struct, frozen=True):
    """One line of a watch."""

    type: str
    object: Raw


class WatchStatus(Struct, frozen=True):
    """The object of an ERROR line."""

    code: int = 0
    reason: str = ""
    message: str = ""


RAW_EVENT = msgspec.json.Decoder(RawEvent)
NAMED = msgspec.json.Decoder(Named)
WATCH_STATUS = msgspec.json.Decoder(WatchStatus)
_RAW_PAGE = msgspec.json.Decoder(_RawPage)
_ENCODER = msgspec.json.Encoder()
_RESOURCES: tuple[Resource[KubeObject], ...] = tuple(
    value for value in vars(resources).values() if isinstance(value, Resource)
)
_ITEM: dict[type[KubeObject], msgspec.json.Decoder[KubeObject]] = {
    r.type: msgspec.json.Decoder(r.type) for r in _RESOURCES
}
_GENERIC: Any = _Page
_PAGE: dict[type[KubeObject], msgspec.json.Decoder[_Page[KubeObject]]] = {
    r.type: msgspec.json.Decoder(_GENERIC[r.type]) for r in _RESOURCES
}


def decode(resource: Resource[T], data: bytes | Raw) -> T:
    """One object. msgspec.DecodeError when it does not have the shape of its kind."""
    return _ITEM[resource.type].decode(data)  # type: ignore[return-value]


def decode_page(resource: Resource[T], data: bytes) -> tuple[ListMeta, list[T], list[Rejected]]:
    """A page of a list; what cannot be decoded is set aside."""
    try:
        page = _PAGE[resource.type].decode(data)
    except msgspec.DecodeError:
        return _decode_one_by_one(resource, data)
    return page.metadata, page.items, []  # type: ignore[return-value]


def _decode_one_by_one(resource: Resource[T], data: bytes) -> tuple[ListMeta, list[T], list[Rejected]]:
    page = _RAW_PAGE.decode(data)
    items: list[T] = []
    rejected: list[Rejected] = []
    for raw in page.items:
        try:
            items.append(decode(resource, raw))
        except msgspec.DecodeError as error:
            rejected.append(reject(raw, str(error)))
    return page.metadata, items, rejected


def reject(raw: bytes | Raw, reason: str) -> Rejected:
    """The name of what cannot be decoded."""
    try:
        meta = NAMED.decode(raw).metadata
    except msgspec.DecodeError:
        return Rejected("", "", reason)
    return Rejected(meta.namespace, meta.name, reason)


def encode(resource: Resource[T], obj: T) -> bytes:
    """One object with its apiVersion and kind in front."""
    head = _ENCODER.encode({"apiVersion": resource.api_version, "kind": resource.kind})
    body = _ENCODER.encode(obj)
    return head if body == b"{}" else head[:-1] + b"," + body[1:]


def encode_patch(patch: object) -> bytes:
    """A patch: dict or list, structs allowed inside."""
    return _ENCODER.encode(patch)
