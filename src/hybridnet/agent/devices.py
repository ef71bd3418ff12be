"""The node's own devices as they are now: the NIC for tunnels and untagged segments, and named bridges."""

from collections.abc import Iterable

from hybridnet.kernel import sysctl
from hybridnet.kernel.address import dump_addresses
from hybridnet.kernel.errors import ObjectNotFound
from hybridnet.kernel.link import Devices, links
from hybridnet.kernel.netlink import Rtnl
from hybridnet.kernel.route import dump_routes
from hybridnet.model.address import Family
from hybridnet.plan.state import DEFAULT_ROUTE, LinkAddress, Scope
from hybridnet.plan.view import Nic

TABLE_MAIN = 254


def read_devices(
    rtnl: Rtnl, nic: str, bridges: Iterable[str]
) -> tuple[Nic | None, tuple[Nic, ...], frozenset[int]]:
    """The NIC called *nic* (empty: that of the default route, IPv4 first), those of *bridges* that exist,
    and the indexes of all of them.
    """
    devices = Devices(rtnl)
    devices.refresh()
    addresses = dump_addresses(rtnl, devices.name, everything=True)
    name = nic or _default_device(rtnl, devices)
    wanted = {name, *bridges}
    here = [link for link in links(rtnl) if link.name in wanted]
    found = {link.name: _nic(link.name, link.mtu, addresses) for link in here}
    named = tuple(found[b] for b in sorted(set(bridges)) if b in found)
    return found.get(name), named, frozenset(link.index for link in here)


def _nic(name: str, mtu: int, addresses: list[LinkAddress]) -> Nic:
    own = tuple(a.address for a in addresses if a.device == name and a.scope is Scope.UNIVERSE)
    try:
        accept_ra = int(sysctl.read(f"net/ipv6/conf/{name}/accept_ra"))
    except ObjectNotFound:
        accept_ra = 0
    return Nic(name, mtu, own, accept_ra)


def _default_device(rtnl: Rtnl, devices: Devices) -> str:
    routes = dump_routes(rtnl, devices.name, protocol=None, table=TABLE_MAIN)
    for family in Family:
        for route in routes:
            if route.destination == DEFAULT_ROUTE[family] and route.device:
                return route.device
    return ""
