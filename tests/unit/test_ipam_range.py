"""Ranges of subnets: what is valid, what belongs to them, how many, and whether two share an address."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.ipam.errors import RangeError
from hybridnet.ipam.range import SubnetRange, parse_range
from hybridnet.model.network import AddressRange


def make(cidr: str, **fields: Any) -> SubnetRange:
    version = fields.pop("version", "6" if ":" in cidr else "4")
    return parse_range(AddressRange(version=version, cidr=cidr, **fields))


def field_refused(cidr: str, **fields: Any) -> str:
    with pytest.raises(RangeError) as caught:
        make(cidr, **fields)
    return caught.value.field.removeprefix("spec.range.")


@pytest.mark.spec("R1")
def test_an_unknown_version_is_refused() -> None:
    assert field_refused("192.168.8.0/24", version="123") == "version"


@pytest.mark.spec("R2")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start", "192.168.8"),
        ("end", "192.168.8"),
        ("gateway", "192.168.8"),
        ("reserved_ips", ("192.168.8",)),
        ("exclude_ips", ("192.168.8",)),
        ("gateway", "fe80::1%eth0"),
    ],
)
def test_what_is_no_address_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    api_name = {"reserved_ips": "reservedIPs", "exclude_ips": "excludeIPs"}.get(field, field)
    assert field_refused("192.168.8.0/24", **{field: value}) == api_name


@pytest.mark.spec("R3")
@pytest.mark.parametrize("cidr", ["192.168.8/24", "192.168.8.0", "", "garbage", "192.168.8.0/33"])
def test_a_broken_cidr_is_refused(cidr: str) -> None:
    assert field_refused(cidr) == "cidr"


@pytest.mark.spec("R4")
def test_host_bits_are_refused_and_the_right_base_is_told() -> None:
    with pytest.raises(RangeError, match=r"192\.168\.8\.0/24"):
        make("192.168.8.10/24")


@pytest.mark.spec("R5")
@pytest.mark.parametrize("field", ["start", "end", "gateway", "reserved_ips", "exclude_ips"])
def test_addresses_outside_the_cidr_are_refused(field: str) -> None:
    value = ("192.168.9.1",) if field.endswith("ips") else "192.168.9.1"
    with pytest.raises(RangeError, match="outside"):
        make("192.168.8.0/24", **{field: value})


@pytest.mark.spec("R6", "R19")
@pytest.mark.parametrize(
    "fields", [{"start": "192.168.8.11", "end": "192.168.8.10"}, {"start": "192.168.8.255"}]
)
def test_a_range_without_usable_address_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(RangeError, match="no usable address"):
        make("192.168.8.0/24", **fields)


def test_excluding_every_address_is_refused() -> None:
    with pytest.raises(RangeError, match="no usable address"):
        make("10.0.0.0/30", gateway="10.0.0.1", exclude_ips=("10.0.0.2",))


@pytest.mark.spec("R7")
def test_a_gateway_of_the_other_family_is_refused() -> None:
    assert field_refused("fd00::/64", gateway="10.0.0.1") == "gateway"


@pytest.mark.spec("R18")
def test_a_cidr_of_the_other_family_is_refused() -> None:
    assert field_refused("10.0.0.0/24", version="6") == "cidr"


@pytest.mark.spec("R16")
@pytest.mark.parametrize("cidr", ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"])
def test_subnets_without_room_are_refused(cidr: str) -> None:
    assert field_refused(cidr) == "cidr"


@pytest.mark.spec("R8", "R9", "R10", "R11", "R12", "R13", "R17")
@pytest.mark.parametrize(
    ("cidr", "fields", "capacity"),
    [
        ("192.168.8.0/24", {}, 254),
        ("192.168.8.0/24", {"gateway": "192.168.8.1"}, 253),
        ("192.168.8.0/24", {"start": "192.168.8.100"}, 155),
        ("192.168.8.0/24", {"start": "192.168.8.100", "end": "192.168.8.200"}, 101),
        (
            "192.168.8.0/24",
            {
                "start": "192.168.8.100",
                "end": "192.168.8.200",
                "exclude_ips": ("192.168.8.101", "192.168.8.102", "192.168.8.101", "192.168.8.9"),
            },
            99,
        ),
        ("0.1.0.0/22", {}, 1022),
        ("0.0.1.0/24", {"start": "0.0.1.100"}, 155),
        ("10.0.0.0/30", {}, 2),
        ("fe80::/120", {}, 255),
        ("fe80::/120", {"gateway": "fe80::1"}, 254),
        ("192.168.56.0/24", {"start": "192.168.56.21", "end": "192.168.56.50"}, 30),
    ],
)
def test_capacity(cidr: str, fields: dict[str, Any], capacity: int) -> None:
    assert make(cidr, **fields).capacity == capacity


@pytest.mark.spec("R14", "R15")
def test_ipv6_capacity_is_exact_whatever_its_size() -> None:
    wide = make(
        "2001:db8:acad:3::/64",
        start="2001:db8:acad:3::ff",
        end="2001:db8:acad:3:ffff:ffff:ffff:fffe",
    )
    assert wide.capacity == 2**64 - 1 - 0xFF
    assert make("2001:db8:acad:3::/64").capacity == 2**64 - 1


@pytest.mark.spec("R20")
def test_explicit_ends_belong_to_the_range() -> None:
    both = make(
        "10.0.0.0/29", start="10.0.0.0", end="10.0.0.7", gateway="10.0.0.3", exclude_ips=("10.0.0.5",)
    )
    inside = [n for n in range(8) if both.contains(int(ip_address("10.0.0.0")) + n)]
    assert inside == [0, 1, 2, 4, 6, 7]


@pytest.mark.spec("R30")
def test_another_spelling_excludes_the_same_address() -> None:
    assert not make("fd00::/120", exclude_ips=("FD00:0::1",)).contains(int(ip_address("fd00::1")))


def between(first: int, last: int, *excluded: int) -> SubnetRange:
    base = "192.168.0."
    return make(
        base + "0/24",
        start=f"{base}{first}",
        end=f"{base}{last}",
        exclude_ips=tuple(f"{base}{x}" for x in excluded),
    )


@pytest.mark.spec("R21", "R22", "R23", "R24", "R25", "R26")
@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (between(10, 50), between(51, 100), False),
        (between(10, 50), between(50, 100), True),
        (between(10, 50, 50), between(50, 100), False),
        (between(10, 50), between(50, 100, 50), False),
        (between(49, 100, 100), between(10, 50, 10), True),
        (between(49, 100, 100), between(50, 50), True),
        (between(10, 30, 20), between(20, 40, 30), True),
    ],
)
def test_ranges_overlap_when_they_share_an_address(
    one: SubnetRange, other: SubnetRange, overlap: bool
) -> None:
    assert one.overlaps(other) is overlap
    assert other.overlaps(one) is overlap


@st.composite
def small_ranges(draw: st.DrawFn) -> SubnetRange:
    first = draw(st.integers(0, 15))
    last = draw(st.integers(first, 15))
    holes = draw(st.sets(st.integers(0, 15), max_size=8))
    reserved = draw(st.sets(st.integers(0, 15), max_size=4))
    gateway = draw(st.none() | st.integers(0, 15))
    base = int(ip_address("10.0.0.0"))
    plain = between(1, 2)
    return SubnetRange(
        family=plain.family,
        cidr=plain.cidr,
        start=base + first,
        end=base + last,
        gateway=None if gateway is None else base + gateway,
        reserved=frozenset(base + r for r in reserved),
        excluded=frozenset(base + h for h in holes),
    )


@given(small_ranges(), small_ranges())
def test_interval_algebra_agrees_with_counting(one: SubnetRange, other: SubnetRange) -> None:
    space = range(int(ip_address("10.0.0.0")) - 1, int(ip_address("10.0.0.16")) + 1)
    assert one.capacity == sum(map(one.contains, space))
    assert one.total == sum(map(one.counts, space))
    assert one.overlaps(other) == any(one.contains(a) and other.contains(a) for a in space)
