"""The subnets of one network: which of them gives the next address.

Subnets are ordered by name, per family. The current one is sticky: a network drains one subnet before it
moves to the next and comes back only after a full circle. Private subnets serve only pods that name them. The
current subnet is remembered by name, not by position, so that a new subnet does not shift it (the original
kept an index into a randomly ordered list).
"""

from bisect import bisect_left

from hybridnet.ipam.errors import Exhausted, NoSubnet
from hybridnet.ipam.pool import SubnetPool
from hybridnet.model.address import Family


class NetworkPool:
    """The usable subnets of one Network."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._subnets: dict[Family, list[SubnetPool]] = {family: [] for family in Family}
        self._current: dict[Family, str] = dict.fromkeys(Family, "")
        self.unsaved: set[Family] = set()
        """Families whose current subnet changed since it was last written to the status."""

    def subnets(self, family: Family) -> tuple[SubnetPool, ...]:
        """The pools of *family*, sorted by name."""
        return tuple(self._subnets[family])

    def put(self, pool: SubnetPool) -> None:
        """Add a subnet."""
        pools = self._subnets[pool.range.family]
        pools.insert(bisect_left(pools, pool.name, key=_name), pool)

    def drop(self, pool: SubnetPool) -> None:
        """Remove a subnet."""
        self._subnets[pool.range.family].remove(pool)

    def current(self, family: Family) -> str:
        """The subnet that allocation is at: the first one before anything was given, "" when there is none."""
        pools = self._subnets[family]
        return pools[self._position(family)].name if pools else ""

    def restore_current(self, family: Family, subnet: str) -> None:
        """Continue at *subnet* (as persisted), unless this process has given addresses itself."""
        if not any(pool.moved for pool in self._subnets[family]):
            self._current[family] = subnet

    def pick(self, family: Family, subnet: str | None = None) -> tuple[SubnetPool, int]:
        """Hold the next address of *family*, of the named subnet or of the current one.

        NoSubnet when there is none of that family, Exhausted when all are in use.
        """
        if subnet is not None:
            return self._pick_named(family, subnet)
        pools = self._subnets[family]
        begin = self._position(family)
        for pool in (*pools[begin:], *pools[:begin]):
            if not pool.private and (address := pool.pick()) is not None:
                if self._current[family] != pool.name:
                    self._current[family] = pool.name
                    self.unsaved.add(family)
                return pool, address
        raise self._nothing_left(family)

    def _pick_named(self, family: Family, subnet: str) -> tuple[SubnetPool, int]:
        pool = next((pool for pool in self._subnets[family] if pool.name == subnet), None)
        if pool is None:
            raise NoSubnet(
                f"network {self.name} has no usable IPv{family} subnet {subnet}; "
                f"see its condition: kubectl describe subnet {subnet}",
                network=self.name,
                family=family,
                subnet=subnet,
            )
        address = pool.pick()
        if address is None:
            raise Exhausted(
                f"subnet {subnet} of network {self.name} is full: {pool.used} of {pool.total} IPv{family} "
                "addresses in use; free some, or name another subnet",
                network=self.name,
                family=family,
                subnet=subnet,
            )
        return pool, address

    def _nothing_left(self, family: Family) -> NoSubnet | Exhausted:
        public = [pool for pool in self._subnets[family] if not pool.private]
        private = len(self._subnets[family]) - len(public)
        aside = f" ({private} private ones serve only pods that name them)" if private else ""
        if not public:
            return NoSubnet(
                f"network {self.name} has no usable IPv{family} subnet{aside}; "
                "create one, or set another ip-family on the pod",
                network=self.name,
                family=family,
                subnet=None,
            )
        numbers = ", ".join(f"{pool.name} {pool.used} of {pool.total}" for pool in public)
        return Exhausted(
            f"network {self.name} is full: IPv{family} addresses in use by subnet: {numbers}{aside}; "
            "add a subnet, or free addresses",
            network=self.name,
            family=family,
            subnet=None,
        )

    def _position(self, family: Family) -> int:
        pools = self._subnets[family]
        position = bisect_left(pools, self._current[family], key=_name)
        return position if position < len(pools) else 0


def _name(pool: SubnetPool) -> str:
    return pool.name
