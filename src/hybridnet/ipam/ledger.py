"""Who holds which address of one family, as far as this process knows.

Three sources make an address busy, and it is free only when none of them holds it:

* a *claim*: the committed truth, adopted from IPBlock objects, never from what we merely wanted to write;
* a *mark*: picked in memory, its claim is being written;
* a *record*: an IPInstance exists. It protects addresses whose block was deleted by hand, and addresses being
  released until their public record has gone.

So memory is a cache: losing it loses nothing, and an ambiguous answer of the API frees nothing.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hybridnet.model.address import BLOCK_SIZE, Family
from hybridnet.model.instance import Claim

_NO_CLAIMS: Mapping[int, Claim] = MappingProxyType({})


class Block:
    """The last known state of one IPBlock. ``version`` is its resourceVersion, "" when it does not exist."""

    __slots__ = ("claims", "version")

    def __init__(self) -> None:
        self.version = ""
        self.claims: Mapping[int, Claim] = _NO_CLAIMS
        """Offset to holder."""


class Ledger:
    """Claims, marks and records of one family. Addresses are integers, blocks are ``address // 256``.

    *on_change* is called with (address, busy) whenever an address becomes busy or free.
    """

    def __init__(self, family: Family, on_change: Callable[[int, bool], None]) -> None:
        self.family = family
        self.blocks: dict[int, Block] = {}
        self._on_change = on_change
        self._by_owner: dict[str, set[int]] = {}
        self._marks: dict[int, str] = {}
        self._records: dict[int, int] = {}

    def block(self, number: int) -> Block:
        """The known state of a block (an absent one when it was never seen)."""
        return self.blocks.get(number) or Block()

    def holder(self, address: int) -> Claim | None:
        """The committed claim on *address*."""
        number, offset = divmod(address, BLOCK_SIZE)
        block = self.blocks.get(number)
        return block.claims.get(offset) if block else None

    def claims_of(self, owner: str) -> tuple[int, ...]:
        """Addresses that *owner* (a UID) has claims on, ascending."""
        return tuple(sorted(self._by_owner.get(owner, ())))

    def owners(self) -> tuple[str, ...]:
        """All UIDs that have claims."""
        return tuple(self._by_owner)

    def busy(self, address: int) -> bool:
        """Whether anything holds *address*."""
        return address in self._marks or address in self._records or self.holder(address) is not None

    def busy_between(self, first: int, last: int) -> list[int]:
        """All busy addresses in an interval; costs what is known, not what the interval spans."""
        found = {a for a in (*self._marks, *self._records) if first <= a <= last}
        for number, block in self.blocks.items():
            if first // BLOCK_SIZE <= number <= last // BLOCK_SIZE:
                base = number * BLOCK_SIZE
                found.update(base + offset for offset in block.claims if first <= base + offset <= last)
        return sorted(found)

    def adopt(self, number: int, version: str, claims: Mapping[int, Claim]) -> None:
        """Take the content of an IPBlock as the truth; an empty *version* means that it does not exist."""
        block = self.blocks.setdefault(number, Block())
        before, block.claims, block.version = block.claims, claims, version
        if not version and not claims:
            del self.blocks[number]
        base = number * BLOCK_SIZE
        for offset, claim in before.items():
            if claims.get(offset) != claim:
                self._unclaim(base + offset, claim.uid)
        for offset, claim in claims.items():
            if before.get(offset) != claim:
                self._claim(base + offset, claim.uid)

    def mark(self, address: int, owner: str) -> None:
        """Note that a claim of *owner* on *address* is being written."""
        self._marks[address] = owner
        self._on_change(address, True)

    def unmark(self, address: int) -> None:
        """The writing of the claim has ended, in whatever way."""
        if self._marks.pop(address, None) is not None:
            self._settle(address)

    def record(self, address: int) -> None:
        """Note that an IPInstance of *address* exists."""
        self._records[address] = self._records.get(address, 0) + 1
        self._on_change(address, True)

    def unrecord(self, address: int) -> None:
        """Note that an IPInstance of *address* has gone."""
        left = self._records.pop(address, 0) - 1
        if left > 0:
            self._records[address] = left
        self._settle(address)

    def _claim(self, address: int, owner: str) -> None:
        self._by_owner.setdefault(owner, set()).add(address)
        self._on_change(address, True)

    def _unclaim(self, address: int, owner: str) -> None:
        mine = self._by_owner[owner]
        mine.discard(address)
        if not mine:
            del self._by_owner[owner]
        self._settle(address)

    def _settle(self, address: int) -> None:
        if not self.busy(address):
            self._on_change(address, False)
