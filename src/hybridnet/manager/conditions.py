"""Status of Networks and Subnets as values: what the book says, in the shape of the API."""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from hybridnet.ipam.network import NetworkPool
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.range import address_at
from hybridnet.ipam.validity import Problem
from hybridnet.model.address import Family
from hybridnet.model.meta import Condition
from hybridnet.model.network import Network, NetworkStatus, NetworkType, Statistics, Subnet, SubnetStatus

READY = "Ready"
INT64_MAX = 2**63 - 1


def subnet_status(subnet: Subnet, pool: SubnetPool | None, problem: Problem | None) -> SubnetStatus:
    """The status that *subnet* should have. A cursor that this process has not moved since it wrote it
    stays as it is, so that two managers do not overwrite each other for ever."""
    before = subnet.status or SubnetStatus()
    if pool is None:
        problem = problem or Problem("Pending", "the manager has not looked at this subnet yet")
        condition = _ready(before.conditions, subnet.metadata.generation, problem)
        return SubnetStatus(last_allocated_ip=before.last_allocated_ip, conditions=condition)
    cursor = before.last_allocated_ip
    if pool.unsaved and pool.cursor is not None:
        cursor = str(address_at(pool.range.family, pool.cursor))
    return SubnetStatus(
        total=_int64(pool.total),
        used=_int64(pool.used),
        available=_int64(pool.available),
        last_allocated_ip=cursor,
        conditions=_ready(before.conditions, subnet.metadata.generation, None, _fill(pool)),
    )


def network_status(
    network: Network,
    pool: NetworkPool | None,
    problem: Problem | None,
    subnets: Iterable[str],
    nodes: Iterable[str],
) -> NetworkStatus:
    """The status that *network* should have."""
    before = network.status or NetworkStatus()
    subnet_list, node_list = tuple(sorted(subnets)), tuple(sorted(nodes))
    problem = problem or _network_problem(network, pool, subnet_list, node_list)
    by_family = {family: _statistics(pool, family) for family in Family}
    pairs = min(statistics.available for statistics in by_family.values())
    return NetworkStatus(
        last_allocated_subnet=_current(pool, Family.V4, before.last_allocated_subnet),
        last_allocated_ipv6_subnet=_current(pool, Family.V6, before.last_allocated_ipv6_subnet),
        subnet_list=subnet_list,
        node_list=node_list,
        statistics=by_family[Family.V4],
        ipv6_statistics=by_family[Family.V6],
        dual_stack_statistics=Statistics(available=pairs),
        conditions=_ready(before.conditions, network.metadata.generation, problem),
    )


def status_patch(version: str, status: SubnetStatus | NetworkStatus) -> dict[str, object]:
    """A merge patch of the whole status, zeros and empty texts included, for that resourceVersion only."""
    return {"metadata": {"resourceVersion": version}, "status": _explicit(status)}


def _explicit(value: object) -> object:
    """Builtins with every field, also those that have their default value."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return {f.encode_name: _explicit(getattr(value, f.name)) for f in fields}
    if isinstance(value, tuple):
        return [_explicit(item) for item in value]
    return value


def _current(pool: NetworkPool | None, family: Family, before: str) -> str:
    """The subnet that allocation is at: what is written stays, unless this process moved on or it has gone."""
    if pool is None:
        return before
    stays = family not in pool.unsaved and any(p.name == before for p in pool.subnets(family))
    return before if stays else pool.current(family)


def _statistics(pool: NetworkPool | None, family: Family) -> Statistics:
    pools = pool.subnets(family) if pool else ()
    return Statistics(
        total=_int64(sum(p.total for p in pools)),
        used=_int64(sum(p.used for p in pools)),
        available=_int64(sum(p.available for p in pools)),
    )


def _int64(number: int) -> int:
    """Counts of IPv6 addresses exceed what the API can carry."""
    return min(number, INT64_MAX)


def _fill(pool: SubnetPool) -> Problem:
    if pool.available > 0:
        return Problem("Usable", "addresses can be given")
    return Problem("Full", f"all {pool.total} addresses are in use; add another subnet or free addresses")


def _network_problem(
    network: Network, pool: NetworkPool | None, subnets: tuple[str, ...], nodes: tuple[str, ...]
) -> Problem | None:
    if pool is None:
        return Problem("Pending", "the manager has not looked at this network yet")
    if not subnets:
        return Problem("NoSubnet", f"create a Subnet whose spec.network is {network.name}")
    if not any(pool.subnets(family) for family in Family):
        return Problem("NoUsableSubnet", f"see the conditions of its subnets: {', '.join(subnets)}")
    if not nodes and network.type is NetworkType.UNDERLAY:
        selector = ",".join(f"{key}={value}" for key, value in sorted(network.spec.node_selector.items()))
        return Problem("NoNode", f"no node has the labels {selector}; label the nodes on this segment")
    return None


def _ready(
    before: tuple[Condition, ...], generation: int, problem: Problem | None, fine: Problem | None = None
) -> tuple[Condition, ...]:
    """The conditions with Ready brought up to date; its time moves only when its status does."""
    told = problem or fine or Problem("Usable", "addresses can be given")
    old = next((c for c in before if c.type == READY), None)
    status = "False" if problem else "True"
    since = old.last_transition_time if old and old.status == status else _now()
    new = Condition(
        type=READY,
        status=status,
        reason=told.reason,
        message=told.message,
        last_transition_time=since,
        observed_generation=generation,
    )
    return (*(c for c in before if c.type != READY), new)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
