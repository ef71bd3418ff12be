"""JSON of the API: decoders built once for each kind, and objects written with their apiVersion and kind.

All decoders are built when this module is imported, on the main thread: msgspec crashes the process when two
threads build or first use one at the same time. A page of a list is decoded at once; only when that fails
each item is decoded by itself, so that one malformed object costs one object.
"""

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from hybridnet.kube.errors import Malformed
from hybridnet.model import resource as resources
from hybridnet.model.meta import KubeObject
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


class Identity(Struct, frozen=True, rename="camel"):
    """The least that identifies an object: a malformed one may have malformed labels too."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Named(Struct, frozen=True):
    metadata: Identity = Identity()


class RawEvent(Struct, frozen=True):
    """One line of a watch."""

    type: str
    object: Raw


RAW_EVENT = msgspec.json.Decoder(RawEvent)
_NAMED = msgspec.json.Decoder(_Named)
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
    """One object. Malformed when it does not have the shape of its kind."""
    try:
        return _ITEM[resource.type].decode(data)  # type: ignore[return-value]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = identify(data)
        name = "/".join(part for part in (found.namespace, found.name) if part)
        raise Malformed(
            200, "Malformed", f"{resource.kind} {name} cannot be read: {error}: correct or delete it"
        ) from error


def decode_page(resource: Resource[T], data: bytes) -> tuple[ListMeta, list[T], list[Rejected]]:
    """A page of a list; what cannot be decoded is set aside. Malformed when it is no list."""
    try:
        page = _PAGE[resource.type].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_one_by_one(resource, data)
    return page.metadata, page.items, []  # type: ignore[return-value]


def _decode_one_by_one(resource: Resource[T], data: bytes) -> tuple[ListMeta, list[T], list[Rejected]]:
    try:
        page = _RAW_PAGE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(200, "Malformed", f"the list of {resource.plural} cannot be read: {error}") from error
    items: list[T] = []
    rejected: list[Rejected] = []
    for raw in page.items:
        try:
            items.append(decode(resource, raw))
        except Malformed as error:
            rejected.append(reject(raw, error))
    return page.metadata, items, rejected


def identify(data: bytes | Raw) -> Identity:
    """Name and version of any object; empty ones when even those cannot be read."""
    try:
        return _NAMED.decode(data).metadata
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Identity()


def reject(raw: bytes | Raw, error: Malformed) -> Rejected:
    """The name of what cannot be decoded, and why."""
    found = identify(raw)
    return Rejected(found.namespace, found.name, str(error.__cause__ or error))


def encode(resource: Resource[T], obj: T) -> bytes:
    """One object with its apiVersion and kind in front."""
    head = _ENCODER.encode({"apiVersion": resource.api_version, "kind": resource.kind})
    body = _ENCODER.encode(obj)
    return head if body == b"{}" else head[:-1] + b"," + body[1:]


def encode_patch(patch: object) -> bytes:
    """A patch: dict or list, structs allowed inside."""
    return _ENCODER.encode(patch)
