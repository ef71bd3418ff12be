"""Who wants which kernel object: the bookkeeping of the applier, without I/O.

Independent parts of the agent (a pod, a node, the overlay) are *scopes*; each states all that it wants. An
object lives as long as a scope wants it. Two scopes may share an object only when they want it equally: the later,
different one is told so and the first value stays. The alternative, last writer wins, makes two reconcilers fight
for ever.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from hybridnet.kernel.describe import describe
from hybridnet.kernel.errors import ConflictingWant
from hybridnet.plan.state import KernelObject

Key: TypeAlias = tuple[type[KernelObject], Hashable]


def key_of(item: KernelObject) -> Key:
    """The identity of an object among all kinds."""
    return type(item), item.key


@dataclass(slots=True)
class Claim:
    """What changed by a scope's statement."""

    wanted: list[KernelObject] = field(default_factory=list)
    """All that the scope wants and may have."""
    dropped: list[KernelObject] = field(default_factory=list)
    """What no scope wants any more."""
    conflicts: list[tuple[KernelObject, ConflictingWant]] = field(default_factory=list)
    """What the scope wants differently from another; it holds no claim on these until it states it again."""


class Ledger:
    """The wants of all scopes."""

    def __init__(self) -> None:
        self._scopes: dict[str, dict[Key, KernelObject]] = {}
        self._holders: dict[Key, set[str]] = {}
        self._values: dict[Key, KernelObject] = {}

    def claim(self, scope: str, want: Iterable[KernelObject]) -> Claim:
        """Replace all that *scope* wants by *want*."""
        claim = Claim()
        new: dict[Key, KernelObject] = {}
        for item in want:
            key = key_of(item)
            rival = self._rival(scope, key, item, new)
            if rival is None:
                new[key] = item
            else:
                claim.conflicts.append((item, rival))
        old = self._scopes.pop(scope, {})
        for key in old.keys() - new.keys():
            self._release(scope, key, claim)
        for key, item in new.items():
            self._holders.setdefault(key, set()).add(scope)
            self._values[key] = item
        if new:
            self._scopes[scope] = new
        claim.wanted.extend(new.values())
        return claim

    def value(self, key: Key) -> KernelObject | None:
        """What is wanted under *key*, if anything."""
        return self._values.get(key)

    def scopes(self) -> tuple[str, ...]:
        """The scopes that want something."""
        return tuple(self._scopes)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[KernelObject]:
        return iter(self._values.values())

    def _rival(
        self, scope: str, key: Key, item: KernelObject, new: dict[Key, KernelObject]
    ) -> ConflictingWant | None:
        others = self._holders.get(key, set()) - {scope}
        rival = new.get(key) or (self._values[key] if others else None)
        if rival is None or rival == item:
            return None
        owner = ", ".join(sorted(others)) or scope
        return ConflictingWant(0, f"{scope} wants {describe(item)}, but {owner} wants {describe(rival)}")

    def _release(self, scope: str, key: Key, claim: Claim) -> None:
        holders = self._holders[key]
        holders.discard(scope)
        if not holders:
            del self._holders[key]
            claim.dropped.append(self._values.pop(key))
