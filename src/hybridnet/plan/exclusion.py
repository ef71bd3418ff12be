"""Which parts of pod CIDRs are not pods: they must be reached natively, never through the tunnel.

Several subnets may share one CIDR; an address of it belongs to pods when any of them has it in its range. The
rest is covered by the fewest CIDR blocks (RFC 4632), each of which becomes one throw route. Network and
broadcast addresses stay inside: excluding them would cost two routes a subnet and help nobody.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from hybridnet.model.address import IPAddress, IPNetwork
from hybridnet.plan.view import SubnetView


def excluded_blocks(subnets: Iterable[SubnetView]) -> dict[IPNetwork, tuple[IPNetwork, ...]]:
    """For each CIDR of *subnets*: the minimal cover of its addresses that no pod can have."""
    by_cidr: dict[IPNetwork, list[SubnetView]] = {}
    for subnet in subnets:
        by_cidr.setdefault(subnet.cidr, []).append(subnet)
    return {cidr: _cover(cidr, group) for cidr, group in by_cidr.items()}


def _cover(cidr: IPNetwork, subnets: list[SubnetView]) -> tuple[IPNetwork, ...]:
    spans = sorted((_first(s), _last(s)) for s in subnets)
    gaps: list[tuple[int, int]] = []
    position = int(cidr.network_address)
    for first, last in spans:
        if first > position:
            gaps.append((position, first - 1))
        position = max(position, last + 1)
    end = int(cidr.broadcast_address)
    if position <= end:
        gaps.append((position, end))
    singles = {int(a) for s in subnets for a in s.excluded}
    singles |= {int(s.gateway) for s in subnets if s.gateway is not None}
    make = IPv4Address if cidr.version == 4 else IPv6Address
    spans_out = _merge(gaps + [(n, n) for n in singles])
    return tuple(block for a, b in spans_out for block in summarize_address_range(make(a), make(b)))


def _first(subnet: SubnetView) -> int:
    """The first pod address; the network address itself counts as inside unless a start was set."""
    implicit = subnet.cidr.network_address + 1
    return int(subnet.cidr.network_address if subnet.first == implicit else subnet.first)


def _last(subnet: SubnetView) -> int:
    implicit: IPAddress = subnet.cidr.broadcast_address
    return int(implicit if int(implicit) - int(subnet.last) <= 1 else subnet.last)


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged
