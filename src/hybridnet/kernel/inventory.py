"""What of ours exists in a namespace, read from the kernel.

Ours is: every route, rule, neighbour proxy and address with our protocol number; VXLAN devices with our alias, and
their forwarding entries. Routes count only in the tables that the caller manages or when it wants them, and only
without a metric, because we never write one. Sysctls have no owner: only the wanted ones are read.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from hybridnet.kernel import sysctl
from hybridnet.kernel.address import dump_addresses
from hybridnet.kernel.ledger import Key, Ledger, key_of
from hybridnet.kernel.link import Devices, Link
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.neighbour import dump_fdb, dump_proxies
from hybridnet.kernel.netlink import Rtnl
from hybridnet.kernel.route import dump_routes
from hybridnet.kernel.rule import dump_rules
from hybridnet.kernel.vxlan import ALIAS, read_vxlan
from hybridnet.plan.state import KernelObject, Route, Sysctl


@dataclass(slots=True)
class Inventory:
    """Objects of ours by identity; *duplicates* are those that share one with a kept object."""

    objects: dict[Key, KernelObject] = field(default_factory=dict)
    duplicates: list[KernelObject] = field(default_factory=list)


def take_inventory(
    rtnl: Rtnl, devices: Devices, ledger: Ledger, managed_tables: Container[int], namespace: Namespace | None
) -> Inventory:
    """Read all that is ours. Refreshes *devices*. Of two objects with one identity the wanted one is kept."""
    tunnels = [link for link in devices.refresh() if link.kind == "vxlan" and link.alias == ALIAS]
    inventory = Inventory()
    for item in _dump(rtnl, devices, tunnels):
        key = key_of(item)
        if isinstance(item, Route) and item.table not in managed_tables and key not in ledger:
            continue
        _put(inventory, key, item, ledger.value(key))
    for knob in ledger:
        if isinstance(knob, Sysctl):
            have = sysctl.current(knob, namespace)
            if have is None and knob.optional:
                inventory.objects[key_of(knob)] = knob
            elif have is not None:
                value = knob.value if sysctl.same(have, knob.value) else have
                inventory.objects[key_of(knob)] = Sysctl(knob.path, value, knob.optional)
    return inventory


def _dump(rtnl: Rtnl, devices: Devices, tunnels: list[Link]) -> Iterable[KernelObject]:
    for link in tunnels:
        value = read_vxlan(link, devices.name)
        if value is not None:
            yield value
    yield from dump_addresses(rtnl, devices.name, devices={link.index for link in tunnels})
    yield from dump_routes(rtnl, devices.name)
    for link in tunnels:
        yield from dump_fdb(rtnl, link.index, link.name)
    yield from dump_proxies(rtnl, devices.name)
    yield from dump_rules(rtnl)


def _put(inventory: Inventory, key: Key, item: KernelObject, wanted: KernelObject | None) -> None:
    kept = inventory.objects.get(key)
    if kept is None:
        inventory.objects[key] = item
    elif kept != item:
        if item == wanted:
            inventory.objects[key] = item
            item = kept
        inventory.duplicates.append(item)
