"""Our nftables tables: replaced as text in one transaction, filled element by element.

libnftables in this process (its text syntax is the documented interface of nftables), no ``nft`` started: one
element into a large set costs 0.13 ms this way. A context belongs to the network namespace and the thread that
made it. What the kernel has is kept in Python; reading it back pulls the whole cache, so that is left to the
start and to audits.

The promise: a transaction is taken whole or not at all, elements survive a change of the chains and a restart of
the process, and what somebody else deleted comes back with the next audit.
"""

import ctypes
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from hybridnet.kernel.errors import NftError
from hybridnet.kernel.namespace import Namespace
from hybridnet.plan.state import NftSet, NftTable

log = structlog.get_logger(__name__)

_STATELESS, _JSON, _TERSE = 1 << 2, 1 << 4, 1 << 11

Element = tuple[str, str, str]
"""Set, key, data (empty for a plain set)."""
_Place = tuple[str, str]
"""Set and key."""


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    return library


class Nft:
    """One libnftables context of one namespace (default: the caller's). One thread at a time."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        """Raises NftError when libnftables.so.1 is not installed."""
        try:
            self._library = _library()
        except OSError as error:
            raise NftError(errno.ENOENT, "load libnftables", f"{error}: install the package libnftables1") from error
        self._context = namespace.run(self._open) if namespace else self._open()

    def _open(self) -> int:
        context = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)
        self._context = context
        self.run("list tables")  # the netlink socket is opened by the first command: here, in the namespace
        return int(context)

    def run(self, text: str, flags: int = 0) -> str:
        """Run commands as one transaction and return what they print. NftError with nft's own message."""
        self._library.nft_ctx_output_set_flags(self._context, flags)
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context).decode()
        error = self._library.nft_ctx_get_error_buffer(self._context).decode()
        if failed:
            raise NftError(errno.EINVAL, "nftables transaction", error.strip() or "no message")
        return str(output)

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = 0


class NftApplier:
    """The one writer of our tables in a namespace."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._nft = Nft(namespace)
        self._tables: dict[str, NftTable] = {}
        self._listings: dict[str, str] = {}
        self._table_of: dict[str, str] = {}
        self._have: dict[_Place, str] = {}
        self._want: dict[_Place, tuple[str, str]] = {}
        """Place to (scope, data)."""
        self._scopes: dict[str, set[_Place]] = {}
        self._pruning = False

    def close(self) -> None:
        """Free the context; the kernel keeps everything."""
        self._nft.close()

    def ensure(self, tables: Sequence[NftTable], *, again: bool = False) -> bool:
        """Make these the tables; whether anything was written. NftError: nothing was changed.

        *again*: write although nothing is new (a device that a chain hooks into has been made anew).
        """
        wanted = {_identity(table): table for table in tables}
        if wanted == self._tables and not again:
            return False
        for name, table in wanted.items():
            for item in table.sets:
                if item.elements is None and item.name not in self._table_of:
                    self._table_of[item.name] = name
                    self._adopt(name, item)
        gone = self._tables.keys() - wanted.keys()
        self._replace(wanted, gone)
        self._tables = wanted
        self._write(self._missing(), [])
        return True

    def set_elements(self, scope: str, elements: Iterable[Element]) -> None:
        """Make *elements* all that *scope* wants. NftError: none of the change was made."""
        new = {(name, key): data for name, key, data in elements}
        old = self._scopes.get(scope, set())
        for place in old - new.keys():
            if self._want.get(place, ("", ""))[0] == scope:
                del self._want[place]
        for place, data in new.items():
            self._want[place] = scope, data
        if new:
            self._scopes[scope] = set(new)
        else:
            self._scopes.pop(scope, None)
        changed = {p: d for p, d in new.items() if self._have.get(p) != d}
        self._write(changed, [p for p in old if p not in self._want and p in self._have])

    def prune(self) -> None:
        """Remove elements that no scope wants, from now on also in audits. Call it once all is known."""
        self._pruning = True
        self._write({}, [place for place in self._have if place not in self._want])

    def audit(self) -> list[str]:
        """Compare the kernel with what is wanted, repair it; what was repaired, in words."""
        repaired = [name for name, text in self._listings.items() if self._list(name) != text]
        if repaired:
            self._replace(self._tables, set())
        before = self._have
        self._have = {}
        for table in self._tables.values():
            for item in table.sets:
                if item.elements is None:
                    self._adopt(_identity(table), item)
        missing = self._missing()
        surplus = [place for place in self._have if self._pruning and place not in self._want]
        repaired += [f"element {key} of {name}" for name, key in {**missing, **dict.fromkeys(surplus)}]
        self._write(missing, surplus)
        if repaired:
            log.warning("nftables repaired", what=repaired[:20], known_before=len(before))
        return repaired

    def _missing(self) -> dict[_Place, str]:
        return {p: data for p, (_, data) in self._want.items() if self._have.get(p) != data}

    def _adopt(self, table: str, item: NftSet) -> None:
        try:
            found = self._nft.run(f"list {_kind(item)} {table} {item.name}", _JSON)
        except NftError:
            return  # the set is not there yet
        self._have.update({(item.name, key): data for key, data in _elements(found)})

    def _replace(self, tables: Mapping[str, NftTable], gone: Iterable[str]) -> None:
        text = "".join(f"delete table {name}\n" for name in gone if self._list(name))
        text += "".join(_definition(table) for table in tables.values())
        try:
            self._nft.run(text)
        except NftError as error:
            # A set or chain of that name with another type, from another version: make the tables anew. Elements
            # that no scope has claimed yet are lost; their scopes bring them back in a moment.
            log.warning("nftables tables made anew", error=str(error))
            fresh = "".join(f"add table {name}\ndelete table {name}\n" for name in tables)
            self._nft.run(fresh + text)
            self._have = {}
        self._listings = {name: self._list(name) for name in tables}

    def _list(self, table: str) -> str:
        try:
            return self._nft.run(f"list table {table}", _STATELESS | _TERSE)
        except NftError:
            return ""

    def _write(self, add: Mapping[_Place, str], remove: Sequence[_Place]) -> None:
        lines = [
            self._command("delete", place, "") for place in (*remove, *(p for p in add if p in self._have))
        ]
        lines += [
            self._command("add", place, data) for place, data in add.items() if place[0] in self._table_of
        ]
        if not lines:
            return
        self._nft.run("\n".join(lines))
        for place in remove:
            del self._have[place]
        self._have.update({p: d for p, d in add.items() if p[0] in self._table_of})

    def _command(self, verb: str, place: _Place, data: str) -> str:
        name, key = place
        value = f"{key} : {data}" if data else key
        return f"{verb} element {self._table_of[name]} {name} {{ {value} }}"


def _identity(table: NftTable) -> str:
    return f"{table.family} {table.name}"


def _kind(item: NftSet) -> str:
    return "map" if " : " in item.declaration else "set"


def _definition(table: NftTable) -> str:
    """Commands that make *table* from whatever it was, keeping its element-wise sets."""
    name = _identity(table)
    lines = [f"add table {name}", f"flush table {name}"]
    for item in table.sets:
        lines.append(f"add {_kind(item)} {name} {item.name} {{ {item.declaration} }}")
        if item.elements is not None:
            lines.append(f"flush {_kind(item)} {name} {item.name}")
        if item.elements:
            values = ", ".join(f"{key} : {data}" if data else key for key, data in item.elements)
            lines.append(f"add element {name} {item.name} {{ {values} }}")
    lines.append(f"table {name} {{\n{table.chains}\n}}")
    return "\n".join(lines) + "\n"


def _elements(listing: str) -> list[tuple[str, str]]:
    """Key and data of each element in libnftables' JSON (libnftables-json(5)); data as a mark is written."""
    found: list[tuple[str, str]] = []
    for entry in msgspec.json.decode(listing)["nftables"]:
        body: dict[str, Any] = entry.get("map") or entry.get("set") or {}
        for item in body.get("elem", ()):
            if isinstance(item, list):
                found.append((str(item[0]), f"0x{int(item[1]):08x}"))
            else:
                found.append((str(item), ""))
    return found
