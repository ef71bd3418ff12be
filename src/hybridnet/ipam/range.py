"""The addresses of a Subnet, by integer arithmetic.

A range is a CIDR narrowed by start, end, gateway and exclusions. All questions (does it hold this address,
how many are there, do two ranges share one) are answered on integers and a few small sets, in time that does
not depend on the size: a /64 costs what a /24 costs. The original materialised every address as a string,
took 2 MiB per /16 for it and could not do an IPv6 /64 at all; it also compared spellings, so an excluded
``fd00:0::1`` excluded nothing.
"""

from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from msgspec import Struct

from hybridnet.ipam.errors import RangeError
from hybridnet.model.address import Family, IPAddress, IPNetwork, family_of
from hybridnet.model.network import AddressRange

MAX_PREFIX_MARGIN = 2
"""A subnet leaves at least two bits for hosts: a /31 or /32 has no room for a gateway and pods."""


class SubnetRange(Struct, frozen=True, dict=True):
    """The addresses of one subnet. ``start`` and ``end`` are inclusive integers."""

    family: Family
    cidr: IPNetwork
    start: int
    end: int
    gateway: int | None = None
    reserved: frozenset[int] = frozenset()
    excluded: frozenset[int] = frozenset()

    @cached_property
    def holes(self) -> frozenset[int]:
        """Integers between start and end that are no address of the subnet: excluded ones and the gateway."""
        gateway = () if self.gateway is None else (self.gateway,)
        return frozenset(a for a in (*self.excluded, *gateway) if self.start <= a <= self.end)

    @cached_property
    def blocked(self) -> frozenset[int]:
        """Integers between start and end that are never picked: holes and reserved addresses."""
        return self.holes | {a for a in self.reserved if self.start <= a <= self.end}

    @property
    def capacity(self) -> int:
        """Number of addresses that belong to the subnet, reserved ones included."""
        return self.end - self.start + 1 - len(self.holes)

    @property
    def total(self) -> int:
        """Number of addresses that can be picked."""
        return self.end - self.start + 1 - len(self.blocked)

    def contains(self, address: int) -> bool:
        """Whether *address* belongs to the subnet (reserved ones do)."""
        return self.start <= address <= self.end and address not in self.holes

    def counts(self, address: int) -> bool:
        """Whether *address* can be picked, so it is in ``total``."""
        return self.start <= address <= self.end and address not in self.blocked

    def overlaps(self, other: "SubnetRange") -> bool:
        """Whether some address belongs to both: the common interval is longer than what either leaves out."""
        low, high = max(self.start, other.start), min(self.end, other.end)
        left_out = sum(1 for a in self.holes | other.holes if low <= a <= high)
        return self.family is other.family and high - low + 1 > left_out


def address_at(family: Family, number: int) -> IPAddress:
    """The address that an integer of *family* stands for."""
    return IPv4Address(number) if family is Family.V4 else IPv6Address(number)


def parse_range(spec: AddressRange) -> SubnetRange:
    """Read and check a Subnet's range. RangeError names the field and the offending value."""
    family = _parse_version(spec.version)
    start = _parse_address("start", spec.start) if spec.start else None
    end = _parse_address("end", spec.end) if spec.end else None
    cidr = _parse_cidr(family, spec.cidr)
    first = int(cidr.network_address) + 1
    last = int(cidr.broadcast_address) - (1 if family is Family.V4 else 0)
    result = SubnetRange(
        family=family,
        cidr=cidr,
        start=first if start is None else _inside("start", start, cidr),
        end=last if end is None else _inside("end", end, cidr),
        gateway=_parse_inside("gateway", spec.gateway, cidr) if spec.gateway else None,
        reserved=frozenset(_parse_inside("reservedIPs", text, cidr) for text in spec.reserved_ips),
        excluded=frozenset(_parse_inside("excludeIPs", text, cidr) for text in spec.exclude_ips),
    )
    _require_addresses(result)
    return result


def _parse_version(text: str) -> Family:
    if text not in ("4", "6"):
        raise RangeError("version", f'"{text}" is not a supported IP version; write "4" or "6"')
    return Family(int(text))


def _parse_address(field: str, text: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError:
        raise RangeError(field, f'"{text}" is not an IP address') from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise RangeError(field, f'"{text}" carries an interface name; write the address alone')
    return address


def _parse_cidr(family: Family, text: str) -> IPNetwork:
    try:
        cidr = ip_network(text, strict=False)
    except ValueError:
        raise RangeError("cidr", f'"{text}" is not a CIDR such as 192.168.0.0/24 or fd00::/64') from None
    if "/" not in text:
        raise RangeError("cidr", f'"{text}" has no prefix length')
    if family_of(cidr) is not family:
        raise RangeError("cidr", f"{text} is IPv{cidr.version}, but spec.range.version is {family}")
    if ip_address(text.split("/", maxsplit=1)[0]) != cidr.network_address:
        raise RangeError("cidr", f"{text} has host bits set; the network is {cidr}")
    if cidr.prefixlen > family.bits - MAX_PREFIX_MARGIN:
        longest = family.bits - MAX_PREFIX_MARGIN
        raise RangeError("cidr", f"{text} is too small for pods; the longest prefix is /{longest}")
    return cidr


def _parse_inside(field: str, text: str, cidr: IPNetwork) -> int:
    return _inside(field, _parse_address(field, text), cidr)


def _inside(field: str, address: IPAddress, cidr: IPNetwork) -> int:
    if address.version != cidr.version:
        raise RangeError(field, f"{address} is IPv{address.version}, but the subnet is IPv{cidr.version}")
    if address not in cidr:
        raise RangeError(field, f"{address} lies outside {cidr}")
    return int(address)


def _require_addresses(subnet: SubnetRange) -> None:
    start, end = address_at(subnet.family, subnet.start), address_at(subnet.family, subnet.end)
    if subnet.start > subnet.end:
        raise RangeError("start", f"no usable address: the first would be {start}, the last {end}")
    if subnet.capacity <= 0:
        raise RangeError("excludeIPs", f"no usable address is left between {start} and {end}")
