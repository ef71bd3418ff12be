"""Which Networks and Subnets can be used, and what is wrong with the others.

Judged as a whole, because most mistakes need two objects: an unknown network, two subnets that share
addresses, a second overlay. The older object wins, so a new mistake never takes addresses from what works. A
bad object is reported on itself and stops nothing else. (The webhook refuses most of this earlier; what gets
past it, or was there before it, is judged here.)
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct, field

from hybridnet.ipam.errors import RangeError
from hybridnet.ipam.range import SubnetRange, address_at, parse_range
from hybridnet.model.address import Family
from hybridnet.model.meta import KubeObject
from hybridnet.model.network import Network, NetworkMode, NetworkType, Subnet

T = TypeVar("T", bound=KubeObject)

_TYPE_OF_MODE = {
    NetworkMode.VLAN: NetworkType.UNDERLAY,
    NetworkMode.BRIDGE: NetworkType.UNDERLAY,
    NetworkMode.BGP: NetworkType.UNDERLAY,
    NetworkMode.VXLAN: NetworkType.OVERLAY,
    NetworkMode.GLOBAL_BGP: NetworkType.GLOBAL_BGP,
}
_SINGLETONS = (NetworkType.OVERLAY, NetworkType.GLOBAL_BGP)


class Problem(Struct, frozen=True):
    """Why an object cannot be used: a CamelCase reason and a sentence with the next step."""

    reason: str
    message: str


class Judgement(Struct, frozen=True):
    """The usable networks and ranges by name, and the problems of the rest."""

    networks: dict[str, Network] = field(default_factory=dict)
    subnets: dict[str, Subnet] = field(default_factory=dict)
    ranges: dict[str, SubnetRange] = field(default_factory=dict)
    network_problems: dict[str, Problem] = field(default_factory=dict)
    subnet_problems: dict[str, Problem] = field(default_factory=dict)


def judge(networks: Iterable[Network], subnets: Iterable[Subnet]) -> Judgement:
    """Sort out what can be used. Terminating objects are neither usable nor wrong: they are left out."""
    result = Judgement()
    singletons: dict[NetworkType, str] = {}
    for network in _oldest_first(networks):
        problem = _network_problem(network, singletons)
        if problem:
            result.network_problems[network.name] = problem
        else:
            result.networks[network.name] = network
            singletons.setdefault(network.type, network.name)
    plan = _AddressPlan()
    for subnet in _oldest_first(subnets):
        verdict = _judge_subnet(subnet, result, plan)
        if isinstance(verdict, Problem):
            result.subnet_problems[subnet.name] = verdict
        else:
            result.subnets[subnet.name] = subnet
            result.ranges[subnet.name] = verdict
    return result


def effective_net_id(subnet: Subnet, network: Network) -> int | None:
    """The netID of a subnet: its own, else the network's."""
    return network.spec.net_id if subnet.spec.net_id is None else subnet.spec.net_id


def _oldest_first(objects: Iterable[T]) -> list[T]:
    living = (o for o in objects if not o.metadata.terminating)
    return sorted(living, key=lambda o: (o.metadata.creation_timestamp or "", o.name))


def _network_problem(network: Network, singletons: Mapping[NetworkType, str]) -> Problem | None:
    try:
        kind, mode = network.type, network.mode
    except ValueError as error:
        return Problem("UnknownType", f"{error}; correct spec.type or spec.mode")
    if _TYPE_OF_MODE[mode] is not kind:
        wanted = _TYPE_OF_MODE[mode]
        return Problem("ModeMismatch", f"mode {mode} needs type {wanted}, not {kind}; recreate the network")
    if kind in _SINGLETONS and kind in singletons:
        return Problem(
            f"Another{kind}Exists",
            f"a cluster has at most one {kind} network, and {singletons[kind]} is older; delete one of them",
        )
    return None


def _judge_subnet(subnet: Subnet, known: Judgement, plan: "_AddressPlan") -> SubnetRange | Problem:
    name = subnet.spec.network
    network = known.networks.get(name)
    if network is None:
        if name in known.network_problems:
            return Problem("NetworkNotReady", f"network {name} cannot be used: {_next(name)}")
        return Problem("UnknownNetwork", f"network {name} does not exist; create it, or recreate this subnet")
    try:
        subnet_range = parse_range(subnet.spec.range)
    except RangeError as error:
        return Problem("InvalidRange", f"{error}; correct the subnet (recreate it if the field is immutable)")
    return (
        _net_id_problem(subnet, network)
        or plan.conflict(subnet_range, name)
        or plan.accept(subnet.name, name, subnet_range)
    )


def _next(network: str) -> str:
    return f"kubectl describe network {network} tells why"


def _net_id_problem(subnet: Subnet, network: Network) -> Problem | None:
    own, inherited = subnet.spec.net_id, network.spec.net_id
    if network.mode in (NetworkMode.VLAN, NetworkMode.BRIDGE):
        if network.mode is NetworkMode.VLAN and own is None and inherited is None:
            return Problem(
                "NoNetID", "neither the subnet nor its network has a netID; set the VLAN id in one"
            )
        if own is not None and inherited is not None and own != inherited:
            message = f"netID {own} differs from {inherited} of network {network.name}; leave it out here"
            return Problem("NetIDMismatch", message)
        if network.mode is NetworkMode.VLAN and not subnet.spec.range.gateway:
            return Problem("NoGateway", "a VLAN subnet needs spec.range.gateway, the router on the segment")
    elif own is not None:
        return Problem("NetIDNotAllowed", f"a subnet of a {network.mode} network has no netID; leave it out")
    return None


class _AddressPlan:
    """The ranges accepted so far. Their distinct CIDRs are disjoint, so a bisection finds any overlap."""

    def __init__(self) -> None:
        self._starts: dict[Family, list[tuple[int, int]]] = {family: [] for family in Family}
        self._subnets: dict[tuple[Family, int], list[tuple[str, str, SubnetRange]]] = {}

    def accept(self, name: str, network: str, subnet_range: SubnetRange) -> SubnetRange:
        span = _span(subnet_range)
        starts = self._starts[subnet_range.family]
        position = bisect_left(starts, span)
        if starts[position : position + 1] != [span]:
            starts.insert(position, span)
        self._subnets.setdefault((subnet_range.family, span[0]), []).append((name, network, subnet_range))
        return subnet_range

    def conflict(self, subnet_range: SubnetRange, network: str) -> Problem | None:
        for name, its_network, other in self._neighbours(subnet_range):
            if other.cidr != subnet_range.cidr:
                what = f"{subnet_range.cidr} overlaps {other.cidr} of subnet {name}"
                return Problem(
                    "Overlap", f"{what}; use the same CIDR with disjoint start and end, or another"
                )
            if its_network != network:
                what = f"{subnet_range.cidr} is used by subnet {name} of network {its_network}"
                return Problem("Overlap", f"{what}; one CIDR belongs to one network")
            if other.overlaps(subnet_range):
                return Problem(
                    "Overlap", f"{_shared(subnet_range, other)} are in subnet {name} too; set start and end"
                )
        return None

    def _neighbours(self, subnet_range: SubnetRange) -> Iterable[tuple[str, str, SubnetRange]]:
        first, last = _span(subnet_range)
        starts = self._starts[subnet_range.family]
        position = bisect_left(starts, (first, 0))
        for start, end in starts[max(position - 1, 0) :]:
            if start > last:
                return
            if end >= first:
                yield from self._subnets[subnet_range.family, start]


def _span(subnet_range: SubnetRange) -> tuple[int, int]:
    return int(subnet_range.cidr.network_address), int(subnet_range.cidr.broadcast_address)


def _shared(one: SubnetRange, other: SubnetRange) -> str:
    low = address_at(one.family, max(one.start, other.start))
    high = address_at(one.family, min(one.end, other.end))
    return f"addresses between {low} and {high}"
