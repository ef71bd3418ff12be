"""Want and have for one namespace: write the difference, nothing else.

``apply`` compares what a scope wants with what the kernel is known to have; an unchanged want costs no system
call. Order: devices, sysctls, addresses, routes, forwarding, proxies, rules; removals afterwards and in reverse,
so no packet meets a rule whose table is not filled. Each object fails alone and is tried again by the next
``apply`` of its scope. ``adopt`` takes over what a former process left; ``audit`` re-reads the kernel and repairs.

What no scope wants is kept until ``prune`` was called: a process that has just started does not know its wants
yet, and must not cut the connections of those it will learn about in a moment.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import structlog

from hybridnet.kernel import sysctl
from hybridnet.kernel.address import add_address, delete_address, dump_addresses
from hybridnet.kernel.errors import AlreadyExists, DeviceNotFound, KernelError, ObjectNotFound
from hybridnet.kernel.inventory import Inventory, take_inventory
from hybridnet.kernel.ledger import Key, Ledger, key_of
from hybridnet.kernel.link import Devices, delete_link
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.neighbour import delete_fdb, delete_proxy, set_fdb, set_proxy
from hybridnet.kernel.netlink import Message, Rtnl
from hybridnet.kernel.route import delete_route, dump_routes, set_route
from hybridnet.kernel.rule import add_rule, delete_rule, dump_rules
from hybridnet.kernel.vxlan import ensure_vxlan
from hybridnet.plan.state import (
    FdbEntry,
    KernelObject,
    LinkAddress,
    ProxyNeighbour,
    Route,
    Rule,
    Sysctl,
    VxlanLink,
)

log = structlog.get_logger(__name__)

_ORDER = (VxlanLink, Sysctl, LinkAddress, Route, FdbEntry, ProxyNeighbour, Rule)
_RANK: dict[type, int] = {kind: rank for rank, kind in enumerate(_ORDER)}


@dataclass(slots=True)
class Result:
    """What one call did."""

    written: list[KernelObject] = field(default_factory=list)
    removed: list[KernelObject] = field(default_factory=list)
    failures: list[tuple[KernelObject, KernelError]] = field(default_factory=list)


@dataclass(slots=True)
class Drift(Result):
    """What an audit found, besides what it did about it."""

    missing: list[KernelObject] = field(default_factory=list)
    different: list[KernelObject] = field(default_factory=list)
    """As wanted, not as found."""
    surplus: list[KernelObject] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.different or self.surplus)


class KernelApplier:
    """The one writer of our objects in a namespace (default: the caller's). One thread at a time."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        """*namespace* stays the caller's, and must stay open as long as this object is used."""
        self.rtnl = Rtnl(namespace)
        self.devices = Devices(self.rtnl)
        self._namespace = namespace
        self._ledger = Ledger()
        self._have: dict[Key, KernelObject] = {}
        self._stale: set[Key] = set()
        self._managed_tables: Container[int] = ()
        self._pruning = False

    def close(self) -> None:
        """Close the socket; the kernel keeps everything."""
        self.rtnl.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def adopt(self, managed_tables: Container[int]) -> list[KernelObject]:
        """Take over what exists and is ours; returns it. *managed_tables*: route tables that are ours alone."""
        self._managed_tables = managed_tables
        self._trust(self._inventory())
        return list(self._have.values())

    def apply(self, scope: str, want: Iterable[KernelObject]) -> Result:
        """Make *want* all that *scope* has. Never raises for an object: see Result.failures.

        An object in failures is not remembered as written: apply the scope again to retry it.
        """
        claim = self._ledger.claim(scope, want)
        result = Result(failures=list(claim.conflicts))
        self._write(claim.wanted, claim.dropped, result)
        return result

    def prune(self) -> Result:
        """Remove what is ours and no scope wants, from now on also in audits. Call it once all is known."""
        self._pruning = True
        result = Result()
        self._write((), [item for key, item in self._have.items() if key not in self._ledger], result)
        return result

    def audit(self) -> Drift:
        """Compare the kernel with all wants and repair the difference."""
        inventory = self._inventory()
        drift = Drift(surplus=self._surplus(inventory) if self._pruning else [])
        for item in self._ledger:
            have = inventory.objects.get(key_of(item))
            if have is None:
                drift.missing.append(item)
            elif have != item:
                drift.different.append(item)
        self._trust(inventory)
        self._write((*drift.missing, *drift.different), drift.surplus, drift)
        return drift

    def forget_device(self, name: str) -> None:
        """Tell that the kernel may have dropped what is on a device: it was deleted, or went down.

        The next ``apply`` of each scope concerned writes its objects again; so does ``audit``.
        """
        self.devices.forget(name)
        self._stale.update(key for key, item in self._have.items() if _concerns(item, name))

    def wanted(self) -> tuple[KernelObject, ...]:
        """All that any scope wants."""
        return tuple(self._ledger)

    def _inventory(self) -> Inventory:
        return take_inventory(self.rtnl, self.devices, self._ledger, self._managed_tables, self._namespace)

    def _trust(self, inventory: Inventory) -> None:
        self._have = dict(inventory.objects)
        self._stale.clear()

    def _differs(self, item: KernelObject) -> bool:
        key = key_of(item)
        return key in self._stale or self._have.get(key) != item

    def _surplus(self, inventory: Inventory) -> list[KernelObject]:
        unwanted = [item for key, item in inventory.objects.items() if key not in self._ledger]
        return unwanted + inventory.duplicates

    def _write(self, wanted: Sequence[KernelObject], dropped: Sequence[KernelObject], result: Result) -> None:
        """Set what differs of *wanted*, then remove *dropped*."""
        todo = [item for item in wanted if self._differs(item)]
        dropped = [item for item in dropped if key_of(item) in self._have]
        if not todo and not dropped:
            return
        todo.extend(self._ensure_links(todo, result))
        self._ensure_sysctls(todo, result)
        replaced = self._set_objects(todo, result)
        self._remove((*replaced, *dropped), result)

    def _ensure_links(self, todo: Sequence[KernelObject], result: Result) -> list[KernelObject]:
        """Set the devices; returns what must be written again because its device is a new one."""
        again: list[KernelObject] = []
        known = set(map(key_of, todo))
        for link in todo:
            if not isinstance(link, VxlanLink):
                continue
            self.devices.forget(link.parent)  # its index must be the present one
            try:
                reason = ensure_vxlan(self.rtnl, link, self.devices.index(link.parent))
            except KernelError as error:
                result.failures.append((link, error))
                continue
            if reason:
                log.warning("vxlan device created", device=link.name, reason=reason)
                self.forget_device(link.name)
                again.extend(
                    item for item in self._ledger if key_of(item) not in known and _concerns(item, link.name)
                )
            self._done(link, result)
        return again

    def _ensure_sysctls(self, todo: Sequence[KernelObject], result: Result) -> None:
        for knob in todo:
            if not isinstance(knob, Sysctl):
                continue
            try:
                sysctl.ensure(knob, self._namespace)
            except KernelError as error:
                result.failures.append((knob, error))
            else:
                self._done(knob, result)

    def _set_objects(self, todo: Sequence[KernelObject], result: Result) -> list[KernelObject]:
        """Set what netlink knows, in order; returns the old versions that must still be removed."""
        items = sorted((item for item in todo if _RANK[type(item)] >= _RANK[LinkAddress]), key=_order)
        replaced: list[KernelObject] = []
        for item, error in self._send(items):
            old = self._have.get(key_of(item))
            if error is not None and not self._is_there(item, error):
                result.failures.append((item, error))
                continue
            if isinstance(old, Rule) and old != item:
                replaced.append(old)
            self._done(item, result)
        return replaced

    def _send(self, items: Sequence[KernelObject]) -> list[tuple[KernelObject, KernelError | None]]:
        """Send in one batch; once more what failed because our knowledge was old."""
        answers = list(zip(items, self._batch(items), strict=True))
        failed = [(item, error) for item, error in answers if error is not None]
        if not failed:
            return answers
        again = self._update_knowledge(failed)
        retried = dict(zip(map(key_of, again), self._batch(again), strict=True))
        return [(item, retried.get(key_of(item), error)) for item, error in answers]

    def _update_knowledge(self, failed: Iterable[tuple[KernelObject, KernelError]]) -> list[KernelObject]:
        """Learn from failures: device indexes, and routes and addresses that are ours already; what to retry."""
        again: list[KernelObject] = []
        existing: list[KernelObject] = []
        for item, error in failed:
            if isinstance(error, DeviceNotFound):
                self.devices.forget(_device_of(item))
                again.append(item)
            elif isinstance(error, AlreadyExists):
                existing.append(item)
        ours = self._read_ours(existing)
        for item in existing:
            found = ours.get(key_of(item))
            if found is None:
                self._have.pop(key_of(item), None)
            else:
                self._have[key_of(item)] = found
                if found != item:
                    again.append(item)
        return again

    def _read_ours(self, existing: Sequence[KernelObject]) -> dict[Key, KernelObject]:
        """What is ours among objects that exist, by reading each table concerned once."""
        found: list[KernelObject] = []
        for table in {item.table for item in existing if isinstance(item, Route)}:
            found.extend(dump_routes(self.rtnl, self.devices.name, table=table))
        if any(isinstance(item, LinkAddress) for item in existing):
            found.extend(dump_addresses(self.rtnl, self.devices.name))
        if any(isinstance(item, Rule) for item in existing):
            found.extend(rule for rule in dump_rules(self.rtnl) if rule in existing)
        return {key_of(item): item for item in found}

    def _is_there(self, item: KernelObject, error: KernelError) -> bool:
        """Whether the error says that our very object exists already."""
        return isinstance(error, AlreadyExists) and self._have.get(key_of(item)) == item

    def _batch(self, items: Sequence[KernelObject]) -> list[KernelError | None]:
        errors: list[KernelError | None] = [None] * len(items)
        messages: list[Message] = []
        positions: list[int] = []
        for position, item in enumerate(items):
            try:
                new = self._messages(item)
            except KernelError as error:
                errors[position] = error
                continue
            messages.extend(new)
            positions.extend([position] * len(new))
        for position, answer in zip(positions, self.rtnl.batch(messages), strict=True):
            errors[position] = answer
        return errors

    def _messages(self, item: KernelObject) -> list[Message]:
        old = self._have.get(key_of(item))
        index = self.devices.index(device) if (device := _device_of(item)) else 0
        match item:
            case Route():
                return [set_route(item, index, replace=old is not None)]
            case LinkAddress() if (
                isinstance(old, LinkAddress) and old != item
            ):  # the kernel cannot change its scope
                return [delete_address(old, index), add_address(item, index)]
            case LinkAddress():
                return [add_address(item, index)]
            case FdbEntry():
                return [set_fdb(item, index)]
            case ProxyNeighbour():
                return [set_proxy(item, index)]
            case Rule():
                return [add_rule(item)]
        raise TypeError(f"no netlink message sets {item}")

    def _remove(self, dropped: Sequence[KernelObject], result: Result) -> None:
        """Remove in reverse order; what is gone already counts as removed."""
        items = sorted(dropped, key=_order, reverse=True)
        messages: list[tuple[KernelObject, Message]] = []
        for item in items:
            message = self._removal(item)
            if message is not None:
                messages.append((item, message))
        errors = self.rtnl.batch([message for _, message in messages])
        failed = {
            id(item): error
            for (item, _), error in zip(messages, errors, strict=True)
            if error is not None and not isinstance(error, DeviceNotFound | ObjectNotFound)
        }
        for item in items:
            self._finish_removal(item, failed.get(id(item)), result)

    def _finish_removal(self, item: KernelObject, error: KernelError | None, result: Result) -> None:
        if error is None and isinstance(item, VxlanLink):
            error = self._delete_device(item.name)
        if error is not None:
            result.failures.append((item, error))
            return
        result.removed.append(item)
        key = key_of(item)
        if self._have.get(key) == item:
            del self._have[key]
            self._stale.discard(key)

    def _removal(self, item: KernelObject) -> Message | None:
        """None: nothing to send, because the kernel has dropped it or it is no netlink object."""
        try:
            index = self.devices.index(device) if (device := _device_of(item)) else 0
        except DeviceNotFound:
            return None
        message: Message | None = None
        match item:
            case Route():
                message = delete_route(item, index)
            case LinkAddress():
                message = delete_address(item, index)
            case FdbEntry():
                message = delete_fdb(item, index)
            case ProxyNeighbour():
                message = delete_proxy(item, index)
            case Rule():
                message = delete_rule(item)
        return message

    def _delete_device(self, name: str) -> KernelError | None:
        try:
            delete_link(self.rtnl, name)
        except KernelError as error:
            return error
        self.forget_device(name)
        return None

    def _done(self, item: KernelObject, result: Result) -> None:
        key = key_of(item)
        self._have[key] = item
        self._stale.discard(key)
        result.written.append(item)


def _order(item: KernelObject) -> tuple[int, bool]:
    """Kinds in order; routes with a gateway after those that make it reachable."""
    return _RANK[type(item)], isinstance(item, Route) and item.gateway is not None


def _device_of(item: KernelObject) -> str:
    return "" if isinstance(item, Rule | Sysctl | VxlanLink) else item.device


def _concerns(item: KernelObject, device: str) -> bool:
    """Whether the kernel drops *item* together with *device*."""
    match item:
        case Sysctl():
            return item.path.split("/")[3:4] == [device]
        case VxlanLink():
            return device in (item.name, item.parent)
        case Rule():
            return False
    return item.device == device
