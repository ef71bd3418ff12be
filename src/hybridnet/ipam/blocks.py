"""A sparse set of addresses that finds the next absent one in constant time, whatever its size and filling.

Bits are kept in Python integers of 256 bits, one per block of 256 addresses in use; above them the same
again: one bit per *full* block, one per full group of 256 blocks, and so on. So ``next_absent`` climbs only
as far as everything to the right is full, and descends again: at most one step per byte of the address. A
nearly full /8 and an empty /64 cost the same, memory follows the blocks in use.

Rejected: one bitmap per subnet (a /64 does not fit), sets with a cursor (a nearly full range is a scan), and
a hint to the first block that is not full (it answers "lowest", not "next after the cursor").
"""

from collections.abc import Iterator

BITS = 8
SIZE = 1 << BITS
FULL = (1 << SIZE) - 1
_LOW = SIZE - 1


class AddressSet:
    """Integers (addresses), with the search for the next integer that is not in the set."""

    __slots__ = ("_levels", "_size")

    def __init__(self) -> None:
        self._levels: list[dict[int, int]] = [{}]
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, value: int) -> bool:
        return self._levels[0].get(value >> BITS, 0) >> (value & _LOW) & 1 == 1

    def __iter__(self) -> Iterator[int]:
        """All members, in ascending order."""
        for node, bits in sorted(self._levels[0].items()):
            rest = bits
            while rest:
                low = rest & -rest
                yield (node << BITS) + low.bit_length() - 1
                rest ^= low

    def add(self, value: int) -> bool:
        """Put *value* in; False when it was there."""
        node, bit = value >> BITS, 1 << (value & _LOW)
        bits = self._levels[0].get(node, 0)
        if bits & bit:
            return False
        self._levels[0][node] = bits = bits | bit
        self._size += 1
        depth = 1
        while bits == FULL:
            bits = self._set(depth, node)
            node >>= BITS
            depth += 1
        return True

    def discard(self, value: int) -> bool:
        """Take *value* out; False when it was not there."""
        if value not in self:
            return False
        self._size -= 1
        node = value
        for level in self._levels:
            parent, bit = node >> BITS, 1 << (node & _LOW)
            bits = level[parent]
            if bits == bit:
                del level[parent]
            else:
                level[parent] = bits ^ bit
            if bits != FULL:
                break
            node = parent
        return True

    def next_absent(self, value: int) -> int:
        """The smallest integer from *value* on that is not in the set."""
        position, depth = value, 0
        while depth < len(self._levels):
            node = position >> BITS
            free = ~self._levels[depth].get(node, 0) & (FULL << (position & _LOW)) & FULL
            if free:
                position = (node << BITS) + _lowest(free)
                break
            position = node + 1
            depth += 1
        while depth:
            depth -= 1
            free = ~self._levels[depth].get(position, 0) & FULL
            position = (position << BITS) + _lowest(free)
        return position

    def _set(self, depth: int, child: int) -> int:
        if depth == len(self._levels):
            self._levels.append({})
        level = self._levels[depth]
        parent = child >> BITS
        level[parent] = bits = level.get(parent, 0) | 1 << (child & _LOW)
        return bits


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
