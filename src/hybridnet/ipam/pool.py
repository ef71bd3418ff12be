"""One subnet's addresses: which are held, where the cursor stands, what is given next.

The cursor is "next available" (parity with the original): it moves past the last given address and wraps
once, so a freed address rests until the cursor comes round. A change of the range is applied to the living
pool: holds and cursor stay. The original rebuilt the pool from a lagging cache, forgot allocations in flight
and rewound the cursor, so the next pod got an address just given away.
"""

from hybridnet.ipam.blocks import AddressSet
from hybridnet.ipam.range import SubnetRange


class SubnetPool:
    """The addresses of one Subnet. Holds are told by the ledger; the pool itself decides nothing about owners."""

    def __init__(self, name: str, network: str, subnet_range: SubnetRange, *, private: bool = False) -> None:
        self.name = name
        self.network = network
        self.private = private
        self.cursor: int | None = None
        self.moved = False
        """Whether this process gives addresses itself: then its cursor is the one to follow."""
        self.unsaved = False
        """Whether the cursor moved since it was last written to the status."""
        self._range = subnet_range
        self._held = AddressSet()
        self._busy = AddressSet()
        self._used = 0
        for address in subnet_range.blocked:
            self._busy.add(address)

    @property
    def range(self) -> SubnetRange:
        """The current range."""
        return self._range

    @property
    def total(self) -> int:
        """Addresses that can be picked, used ones included."""
        return self._range.total

    @property
    def used(self) -> int:
        """Held addresses that are in ``total``."""
        return self._used

    @property
    def available(self) -> int:
        """Addresses left to pick."""
        return self._range.total - self._used

    def hold(self, address: int) -> None:
        """Note that *address* has a holder. Any address of the CIDR may be held, also one outside the range."""
        if self._held.add(address):
            self._busy.add(address)
            self._used += self._range.counts(address)

    def free(self, address: int) -> None:
        """Note that *address* has no holder any more; reserved and excluded ones stay unpickable."""
        if self._held.discard(address):
            if address not in self._range.blocked:
                self._busy.discard(address)
            self._used -= self._range.counts(address)

    def holds(self, address: int) -> bool:
        """Whether *address* has a holder."""
        return address in self._held

    def pick(self) -> int | None:
        """Hold the next free address after the cursor and move the cursor there; None when all are in use."""
        if self.available <= 0:
            return None
        start, end = self._range.start, self._range.end
        after = start if self.cursor is None or not start <= self.cursor < end else self.cursor + 1
        address = self._busy.next_absent(after)
        if address > end:
            address = self._busy.next_absent(start)
        self.cursor, self.moved, self.unsaved = address, True, True
        self.hold(address)
        return address

    def restore_cursor(self, address: int) -> None:
        """Continue behind *address* (as persisted), unless this process has given addresses itself."""
        if not self.moved:
            self.cursor = address

    def change(self, subnet_range: SubnetRange) -> None:
        """Apply another range of the same CIDR. Holds and cursor stay as they are."""
        before, self._range = self._range.blocked, subnet_range
        for address in before - subnet_range.blocked:
            if address not in self._held:
                self._busy.discard(address)
        for address in subnet_range.blocked:
            self._busy.add(address)
        self._used = sum(1 for address in self._held if subnet_range.counts(address))
