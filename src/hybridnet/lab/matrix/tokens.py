"""Payloads that tell, on any wire, which cell they belong to.

A token is 16 bytes: a magic word, the run, the cell, the direction. A payload is nothing but its token over and
over, so that every TCP segment holds a whole one, wherever the kernel cuts.
"""

import os
import struct
from typing import NamedTuple

MAGIC = b"hncell"
SIZE = 16
_TOKEN = struct.Struct("!6s4sIBx")
_HEAD = len(MAGIC)


class Mark(NamedTuple):
    """What a token says."""

    cell: int
    reply: bool


class Tokens:
    """The tokens of one run; those of other runs are not found."""

    def __init__(self, run: bytes | None = None) -> None:
        """*run*: four bytes, random when not given."""
        self._run = run or os.urandom(4)

    def payload(self, cell: int, size: int, *, reply: bool = False) -> bytes:
        """*size* bytes of the token of *cell* (its number)."""
        token = _TOKEN.pack(MAGIC, self._run, cell, reply)
        return (token * (size // SIZE + 1))[:size]

    def find(self, data: bytes) -> Mark | None:
        """The first whole token of this run anywhere in *data*."""
        at = data.find(MAGIC + self._run)
        if at < 0 or len(data) < at + SIZE:
            return None
        _, _, cell, reply = _TOKEN.unpack_from(data, at)
        return Mark(cell, bool(reply))
