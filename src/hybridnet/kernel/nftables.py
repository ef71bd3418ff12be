"""Our nftables tables: each replaced as text in one transaction, filled element by element.

What the kernel has is kept in Python; reading it back pulls the whole cache, so that is left to the start, to
audits and to failures. Sets whose elements come one by one (``NftSet.elements`` None) must have names that are
unique among our tables.

The promise: a transaction is taken whole or not at all, a table that fails does not hinder another, elements
survive a change of the chains and a restart of the process, and what somebody else deleted comes back with the
next audit or the next change that trips over it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import structlog

from hybridnet.kernel.errors import NftError
from hybridnet.kernel.libnftables import JSON, STATELESS, TERSE, Nft
from hybridnet.kernel.namespace import Namespace
from hybridnet.plan.state import NftSet, NftTable

log = structlog.get_logger(__name__)

Element: TypeAlias = tuple[str, str, str]
"""Set, key, data (empty for a plain set; a mark as ``0x%08x``)."""
_Place: TypeAlias = tuple[str, str]
"""Set and key."""

_CHAIN = re.compile(r"^\s*chain (\S+) \{", re.MULTILINE)
_SET = re.compile(r"^\s*(set|map) (\S+) \{", re.MULTILINE)


class NftApplier:
    """The one writer of our tables in a namespace."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._nft = Nft(namespace)
        self._wanted: dict[str, NftTable] = {}
        self._tables: dict[str, NftTable] = {}
        """What of *_wanted* the kernel has taken."""
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
        """Make these the tables; whether anything was written. Tables of the same names in other families go.

        *again*: write although nothing is new (a device that a chain hooks into has been made anew).
        NftError: the table that it names is as it was before, the others are as wanted; call again to retry.
        """
        self._wanted = {_identity(table): table for table in tables}
        if self._wanted == self._tables and not again:
            return False
        self._delete_others()
        todo = [name for name, table in self._wanted.items() if again or self._tables.get(name) != table]
        failures = self._replace_all(todo)
        self._write(self._missing(), [])
        if failures:
            raise failures[0]
        return True

    def set_elements(self, scope: str, elements: Iterable[Element]) -> None:
        """Make *elements* all that *scope* wants; of two scopes that want one key the later has it.

        NftError: none of the change was made, the next audit tries again.
        """
        new = {(name, key): data for name, key, data in elements}
        old = self._scopes.pop(scope, set())
        for place in old - new.keys():
            if self._want.get(place, ("", ""))[0] == scope:
                del self._want[place]
        for place, data in new.items():
            self._want[place] = scope, data
        if new:
            self._scopes[scope] = set(new)
        dropped = [place for place in old if place not in self._want]
        try:
            self._write(new, dropped)
        except NftError as error:
            log.warning("nftables changed by somebody else", scope=scope, error=str(error))
            self.audit()
            self._write(new, dropped)

    def prune(self) -> None:
        """Remove elements that no scope wants, from now on also in audits. Call it once all is known."""
        self._pruning = True
        self._write({}, [place for place in self._have if place not in self._want])

    def audit(self) -> list[str]:
        """Compare the kernel with what is wanted, repair it; what was repaired, in words. NftError."""
        broken = [name for name, table in self._wanted.items() if not self._is_intact(name, table)]
        failures = self._replace_all(broken)
        self._have = {}
        for name, table in self._tables.items():
            self._adopt(name, table)
        missing = self._missing()
        surplus = [place for place in self._have if self._pruning and place not in self._want]
        self._write(missing, surplus)
        if failures:
            raise failures[0]
        elements = [f"element {key} of {name}" for name, key in (*missing, *surplus)]
        return [f"table {name}" for name in broken] + elements

    def _is_intact(self, name: str, table: NftTable) -> bool:
        return self._tables.get(name) == table and self._listings.get(name) == self._list(table)

    def _missing(self) -> dict[_Place, str]:
        wanted = ((place, data) for place, (_, data) in self._want.items())
        return {place: data for place, data in wanted if self._have.get(place) != data}

    def _delete_others(self) -> None:
        """Delete our former tables: of names and families that are wanted no more, or by a former process."""
        names = {table.name for table in (*self._wanted.values(), *self._tables.values())}
        for entry in _entries(self._nft.run("list tables", JSON), "table"):
            identity = f"{entry['family']} {entry['name']}"
            if entry["name"] in names and identity not in self._wanted:
                self._nft.run(f"delete table {identity}")
                self._forget(identity)

    def _forget(self, identity: str) -> None:
        self._tables.pop(identity, None)
        self._listings.pop(identity, None)
        gone = {name for name, table in self._table_of.items() if table == identity}
        self._table_of = {name: table for name, table in self._table_of.items() if name not in gone}
        self._have = {place: data for place, data in self._have.items() if place[0] not in gone}

    def _replace_all(self, names: Iterable[str]) -> list[NftError]:
        failures: list[NftError] = []
        for name in names:
            try:
                self._replace(name, self._wanted[name])
            except NftError as error:
                failures.append(NftError(error.errno, f"write nftables table {name}", error.detail))
        return failures

    def _replace(self, name: str, table: NftTable) -> None:
        if name not in self._tables:
            self._adopt(name, table)
        definition = _definition(table, self._obsolete(name, table))
        try:
            self._nft.run(definition)
        except NftError as error:
            self._make_anew(name, table, error)
        self._tables[name] = table
        self._listings[name] = self._list(table)
        self._table_of |= {item.name: name for item in table.sets if item.elements is None}

    def _make_anew(self, name: str, table: NftTable, reason: NftError) -> None:
        """A chain or set of that name has another type, from another version: replace the table as a whole.

        The elements go with it if their type still fits; else their scopes bring them back in a moment.
        """
        fresh = f"add table {name}\ndelete table {name}\n" + _definition(table, "")
        ours = {item.name for item in table.sets if item.elements is None}
        kept = {place: data for place, data in self._have.items() if place[0] in ours}
        elements = "\n".join(_command("add", name, place, data) for place, data in kept.items())
        try:
            self._nft.run(fresh + elements)
        except NftError:
            try:
                self._nft.run(fresh)
            except NftError:
                raise reason from None
            self._have = {place: data for place, data in self._have.items() if place not in kept}
        log.warning("nftables table made anew", table=name, reason=str(reason))

    def _obsolete(self, name: str, table: NftTable) -> str:
        """Commands that delete the chains and sets of the kernel's table that *table* does not have."""
        try:
            listing = self._nft.run(f"list table {name}", TERSE)
        except NftError:
            return ""  # there is no such table yet
        chains = set(_CHAIN.findall(listing)) - set(_CHAIN.findall(table.chains))
        sets = set(_SET.findall(listing)) - {(_kind(item), item.name) for item in table.sets}
        commands = [f"delete chain {name} {chain}" for chain in sorted(chains)]
        return "\n".join(commands + [f"delete {kind} {name} {item}" for kind, item in sorted(sets)])

    def _list(self, table: NftTable) -> str:
        """What must not change behind our back: all but counters and elements that come one by one."""
        name = _identity(table)
        fixed = [f"list set {name} {item.name}" for item in table.sets if item.elements is not None]
        try:
            parts = [self._nft.run(f"list table {name}", STATELESS | TERSE)]
            parts += [self._nft.run(command) for command in fixed]
        except NftError:
            return ""
        return "".join(parts)

    def _adopt(self, name: str, table: NftTable) -> None:
        """Learn the elements that the kernel has."""
        for item in table.sets:
            if item.elements is not None:
                continue
            try:
                listing = self._nft.run(f"list {_kind(item)} {name} {item.name}", JSON)
            except NftError:
                continue  # the set is not there yet
            self._table_of[item.name] = name
            self._have.update({(item.name, key): data for key, data in _elements(listing)})

    def _write(self, wanted: Mapping[_Place, str], dropped: Iterable[_Place]) -> None:
        """Write what differs from what the kernel has, in one transaction."""
        add = {p: d for p, d in wanted.items() if p[0] in self._table_of and self._have.get(p) != d}
        remove = [place for place in dropped if place in self._have]
        lines = [
            _command("delete", self._table_of[place[0]], place, "")
            for place in (*remove, *(place for place in add if place in self._have))
        ]
        lines += [_command("add", self._table_of[place[0]], place, data) for place, data in add.items()]
        if not lines:
            return
        self._nft.run("\n".join(lines))
        for place in remove:
            del self._have[place]
        self._have.update(add)


def _identity(table: NftTable) -> str:
    return f"{table.family} {table.name}"


def _kind(item: NftSet) -> str:
    return "map" if " : " in item.declaration else "set"


def _command(verb: str, table: str, place: _Place, data: str) -> str:
    name, key = place
    value = f"{key} : {data}" if data else key
    return f"{verb} element {table} {name} {{ {value} }}"


def _definition(table: NftTable, obsolete: str) -> str:
    """Commands that make *table* from whatever it was, keeping its element-wise sets."""
    name = _identity(table)
    lines = [f"add table {name}", f"flush table {name}", obsolete]
    for item in table.sets:
        lines.append(f"add {_kind(item)} {name} {item.name} {{ {item.declaration} }}")
        if item.elements is not None:
            lines.append(f"flush {_kind(item)} {name} {item.name}")
        if item.elements:
            values = ", ".join(f"{key} : {data}" if data else key for key, data in item.elements)
            lines.append(f"add element {name} {item.name} {{ {values} }}")
    lines.append(f"table {name} {{\n{table.chains}\n}}")
    return "\n".join(lines) + "\n"


def _entries(listing: str, kind: str) -> list[dict[str, Any]]:
    """The objects of one kind in libnftables' JSON (libnftables-json(5))."""
    return [entry[kind] for entry in msgspec.json.decode(listing)["nftables"] if kind in entry]


def _elements(listing: str) -> list[tuple[str, str]]:
    """Key and data of each element of the one set or map listed."""
    found: list[tuple[str, str]] = []
    for body in (*_entries(listing, "set"), *_entries(listing, "map")):
        for item in body.get("elem", ()):
            key, data = item if isinstance(item, list) else (item, "")
            found.append((_key(key), _data(data)))
    return found


def _key(value: Any) -> str:  # noqa: ANN401  (JSON)
    """An element's key in text syntax."""
    match value:
        case {"elem": {"val": inner}}:
            return _key(inner)
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"concat": list(parts)}:
            return " . ".join(map(_key, parts))
    return str(value)


def _data(value: Any) -> str:  # noqa: ANN401  (JSON)
    """An element's data in text syntax: a number as a mark, a verdict with its chain."""
    match value:
        case int():
            return f"0x{value:08x}"
        case {"jump": {"target": chain}}:
            return f"jump {chain}"
        case {"goto": {"target": chain}}:
            return f"goto {chain}"
        case dict():
            return str(next(iter(value)))
    return str(value)
