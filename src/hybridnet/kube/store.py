"""The objects of one kind in memory, with indexes. No I/O: an informer fills it.

An index function that fails on an object makes the object as unusable as one that cannot be decoded; it is
called before anything changes, so the store is never half updated.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from hybridnet.model.meta import KubeObject

T = TypeVar("T", bound=KubeObject)

ObjectKey = tuple[str, str]
"""(namespace, name)."""
Index = Callable[[T], Iterable[str]]


class Store(Generic[T]):
    """Objects by key, and by the values of index functions."""

    def __init__(self, indexes: Mapping[str, Index[T]]) -> None:
        self._objects: dict[ObjectKey, T] = {}
        self._functions = dict(indexes)
        self._values: dict[ObjectKey, tuple[tuple[str, str], ...]] = {}
        self._indexed: dict[tuple[str, str], dict[ObjectKey, T]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._objects

    def get(self, key: ObjectKey) -> T | None:
        """One object."""
        return self._objects.get(key)

    def keys(self) -> set[ObjectKey]:
        """All keys."""
        return set(self._objects)

    def items(self) -> list[T]:
        """All objects."""
        return list(self._objects.values())

    def by_index(self, index: str, value: str) -> list[T]:
        """Objects that the index function gave *value* for. KeyError for an index that does not exist."""
        if index not in self._functions:
            raise KeyError(index)
        return list(self._indexed.get((index, value), {}).values())

    def put(self, obj: T) -> T | None:
        """Store *obj* and return what it replaces. Raises whatever an index function does."""
        key = obj.key
        values = tuple((name, value) for name, function in self._functions.items() for value in function(obj))
        old = self.remove(key)
        self._objects[key] = obj
        if values:
            self._values[key] = values
            for value in values:
                self._indexed.setdefault(value, {})[key] = obj
        return old

    def remove(self, key: ObjectKey) -> T | None:
        """Forget an object and return it."""
        for value in self._values.pop(key, ()):
            found = self._indexed.get(value, {})
            found.pop(key, None)
            if not found:
                self._indexed.pop(value, None)
        return self._objects.pop(key, None)
