"""Messages and attributes, byte by byte."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.kernel import netlink
from hybridnet.kernel.describe import describe
from hybridnet.kernel.errors import DeviceNotFound, KernelError, NotPermitted, kernel_error
from hybridnet.model.address import Family
from hybridnet.plan.state import Rule, RuleAction


def test_an_attribute_is_padded_to_four_bytes() -> None:
    assert netlink.attribute(3, b"abcde") == b"\x09\x00\x03\x00abcde\x00\x00\x00"
    assert netlink.text(3, "lo") == b"\x07\x00\x03\x00lo\x00\x00"
    assert netlink.mac(1, "02:00:00:00:00:0a") == b"\x0a\x00\x01\x00\x02\x00\x00\x00\x00\x0a\x00\x00"
    assert netlink.u16be(15, 8472) == b"\x06\x00\x0f\x00\x21\x18\x00\x00"


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=10), st.binary(max_size=8))
def test_what_is_encoded_is_parsed(attributes: dict[int, bytes], header: bytes) -> None:
    encoded = header + b"".join(netlink.attribute(kind, data) for kind, data in attributes.items())
    assert netlink.parse(encoded, len(header)) == attributes


@given(st.binary(max_size=200))
def test_broken_bytes_end_the_parser_and_never_hang_it(data: bytes) -> None:
    assert sum(map(len, netlink.parse(data).values())) <= len(data)
    assert sum(len(body) for *_, body in netlink.split(data)) <= len(data)


def test_a_nested_attribute_is_flagged_and_read_without_its_flag() -> None:
    encoded = netlink.nested(18, netlink.text(1, "veth"))
    assert encoded[3] & 0x80
    assert netlink.read_text(netlink.parse(netlink.parse(encoded)[18])[1]) == "veth"


def test_values_are_read_as_they_are_written() -> None:
    assert netlink.read_u32(netlink.parse(netlink.u32(1, 0xDEADBEEF))[1]) == 0xDEADBEEF
    assert netlink.read_mac(netlink.parse(netlink.mac(1, "02:00:00:00:00:0a"))[1]) == "02:00:00:00:00:0a"
    assert netlink.read_address(IPv4Address("10.0.0.1").packed) == IPv4Address("10.0.0.1")
    assert netlink.read_address(IPv6Address("fd00::1").packed) == IPv6Address("fd00::1")


@pytest.mark.parametrize(
    ("errno", "kind"), [(19, DeviceNotFound), (1, NotPermitted), (13, NotPermitted), (105, KernelError)]
)
def test_an_errno_becomes_its_exception(errno: int, kind: type[KernelError]) -> None:
    error = kernel_error(errno, "set route x", "why")
    assert type(error) is kind
    assert error.errno == errno
    assert str(error).startswith("set route x: ")
    assert "(why)" in str(error)


def test_a_rule_is_described_as_an_operator_would_type_it() -> None:
    rule = Rule(Family.V4, 2010, RuleAction.LOOKUP, 40001, 0x10, 0xF0)
    assert describe(rule) == "rule IPv4 priority 2010 fwmark 0x10/0xf0 lookup 40001"
