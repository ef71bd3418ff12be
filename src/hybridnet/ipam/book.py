"""All addresses of the cluster: usable networks and subnets over the ledgers of both families.

Spec changes are applied as a difference: a pool that stays keeps its holds, its marks and its cursor; a new
one learns from the ledger what is busy in it. Nothing here waits or does I/O, so every decision is atomic
within the event loop.
"""

from bisect import bisect_right, insort
from collections.abc import Callable
from ipaddress import ip_address

from hybridnet.ipam.ledger import Ledger
from hybridnet.ipam.network import NetworkPool
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.validity import Judgement
from hybridnet.model.address import Family
from hybridnet.model.network import Network, Subnet

OnChange = Callable[[SubnetPool, bool], None]


class AddressBook:
    """Networks, subnets and who holds what. *on_change* gets (pool, whether an address became free)."""

    def __init__(self, on_change: OnChange) -> None:
        self.judgement = Judgement()
        self.networks: dict[str, NetworkPool] = {}
        self.pools: dict[str, SubnetPool] = {}
        self.ledgers = {family: Ledger(family, self._router(family)) for family in Family}
        self._on_change = on_change
        self._spans: dict[Family, list[tuple[int, int]]] = {family: [] for family in Family}
        self._by_span: dict[tuple[Family, int], list[SubnetPool]] = {}

    def apply(self, judgement: Judgement) -> None:
        """Make the pools follow what is usable now."""
        self.judgement = judgement
        for name in [name for name in self.pools if not self._stays(name)]:
            self._drop(self.pools[name])
        for name in [name for name in self.networks if name not in judgement.networks]:
            del self.networks[name]
        for name, network in judgement.networks.items():
            if name not in self.networks:
                self.networks[name] = NetworkPool(name)
            self.restore_current(network)
        for name, subnet in judgement.subnets.items():
            self._put(name, subnet)

    def pool_of(self, family: Family, address: int) -> SubnetPool | None:
        """The subnet that *address* belongs to."""
        return next((p for p in self._pools_at(family, address) if p.range.contains(address)), None)

    def rest(self) -> None:
        """This process gives no addresses for now: follow the persisted cursors again."""
        for pool in self.pools.values():
            pool.moved = pool.unsaved = False
        for network in self.networks.values():
            network.unsaved.clear()

    def _stays(self, name: str) -> bool:
        pool, subnet_range = self.pools[name], self.judgement.ranges.get(name)
        if subnet_range is None or subnet_range.cidr != pool.range.cidr:
            return False
        return self.judgement.subnets[name].spec.network == pool.network

    def _put(self, name: str, subnet: Subnet) -> None:
        subnet_range = self.judgement.ranges[name]
        pool = self.pools.get(name)
        if pool is None:
            pool = SubnetPool(name, subnet.spec.network, subnet_range)
            self._connect(pool)
        elif pool.range != subnet_range:
            pool.change(subnet_range)
        pool.private = subnet.private
        self.restore_cursor(subnet)

    def _connect(self, pool: SubnetPool) -> None:
        family, span = pool.range.family, _span(pool)
        for address in self.ledgers[family].busy_between(*span):
            pool.hold(address)
        self.pools[pool.name] = pool
        self.networks[pool.network].put(pool)
        sharing = self._by_span.setdefault((family, span[0]), [])
        if not sharing:
            insort(self._spans[family], span)
        sharing.append(pool)

    def _drop(self, pool: SubnetPool) -> None:
        family, span = pool.range.family, _span(pool)
        del self.pools[pool.name]
        self.networks[pool.network].drop(pool)
        sharing = self._by_span[family, span[0]]
        sharing.remove(pool)
        if not sharing:
            del self._by_span[family, span[0]]
            self._spans[family].remove(span)

    def claims_of(self, owner: str) -> list[tuple[Family, int]]:
        """Every address that *owner* (a UID) has a claim on."""
        return [(f, address) for f, ledger in self.ledgers.items() for address in ledger.claims_of(owner)]

    def pick(self, network: str, family: Family, subnet: str | None, owner: str) -> tuple[SubnetPool, int]:
        """Mark the next address for *owner* (a UID). NoSubnet or Exhausted when there is none."""
        networks = self.networks.get(network) or NetworkPool(network)
        pool, address = networks.pick(family, subnet)
        self.ledgers[family].mark(address, owner)
        self._on_change(pool, False)
        return pool, address

    def available(self, network: str, family: Family, subnet: str | None) -> bool:
        """Whether the next pick would find an address."""
        pools = self.networks[network].subnets(family) if network in self.networks else ()
        return any(
            pool.available > 0 and (pool.name == subnet if subnet else not pool.private) for pool in pools
        )

    def restore_cursor(self, subnet: Subnet) -> None:
        """Follow the cursor in a Subnet's status, unless this process gives addresses itself."""
        pool = self.pools.get(subnet.name)
        if pool and subnet.status and subnet.status.last_allocated_ip:
            cursor = _parse_cursor(subnet.status.last_allocated_ip, pool.range.family)
            if cursor is not None:
                pool.restore_cursor(cursor)

    def restore_current(self, network: Network) -> None:
        """Follow the current subnets in a Network's status, unless this process gives addresses itself."""
        pool = self.networks.get(network.name)
        if pool and network.status:
            pool.restore_current(Family.V4, network.status.last_allocated_subnet)
            pool.restore_current(Family.V6, network.status.last_allocated_ipv6_subnet)

    def _pools_at(self, family: Family, address: int) -> list[SubnetPool]:
        spans = self._spans[family]
        position = bisect_right(spans, address, key=_start) - 1
        if position < 0 or spans[position][1] < address:
            return []
        return self._by_span[family, spans[position][0]]

    def _router(self, family: Family) -> Callable[[int, bool], None]:
        def route(address: int, busy: bool) -> None:
            for pool in self._pools_at(family, address):
                if pool.holds(address) != busy:
                    (pool.hold if busy else pool.free)(address)
                    self._on_change(pool, not busy)

        return route


def _start(span: tuple[int, int]) -> int:
    return span[0]


def _span(pool: SubnetPool) -> tuple[int, int]:
    return int(pool.range.cidr.network_address), int(pool.range.cidr.broadcast_address)


def _parse_cursor(text: str, family: Family) -> int | None:
    """A persisted cursor; one that makes no sense is as good as none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return int(address) if address.version == family else None
