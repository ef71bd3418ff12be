"""What the API server itself refuses of a Subnet: address arithmetic in the CRD, without a webhook."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.network import MAX_EXCLUDED, MAX_RESERVED
from hybridnet.model.resource import SUBNETS
from tests.api.raw import Manifest, RawApi

FULL = {
    "version": "4",
    "cidr": "192.168.56.0/24",
    "start": "192.168.56.10",
    "end": "192.168.56.200",
    "gateway": "192.168.56.1",
    "reservedIPs": ["192.168.56.11", "192.168.56.12"],
    "excludeIPs": ["192.168.56.13", "192.168.56.14"],
}


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Iterator[RawApi]:
    raw = RawApi(api_server.kubeconfig)
    yield raw
    raw.close()


def subnet(range_: dict[str, Any], **spec: Any) -> Manifest:
    return {
        "apiVersion": SUBNETS.api_version,
        "kind": "Subnet",
        "metadata": {"name": "crd-subnet"},
        "spec": {"network": "crd-network", "range": range_, **spec},
    }


def v4(cidr: str = "192.168.8.0/24", /, **fields: Any) -> Manifest:
    return subnet({"version": "4", "cidr": cidr, **fields})


def v6(cidr: str = "fd00:8::/64", /, **fields: Any) -> Manifest:
    return subnet({"version": "6", "cidr": cidr, **fields})


def excluded(count: int) -> list[str]:
    return [str(IPv6Address("fd00:8::1:0") + i) for i in range(count)]


ACCEPTED = {
    "everything": subnet(
        FULL,
        netID=100,
        config={
            "autoNatOutgoing": True,
            "private": False,
            "gatewayType": "distributed",
            "gatewayNode": "node1",
            "allowSubnets": ["a"],
        },
    ),
    "cidr alone": v4(),
    "cidr alone, IPv6": v6(),
    "null netID and config": subnet({"version": "4", "cidr": "10.0.0.0/8"}, netID=None, config=None),
    "empty texts and lists": v4(start="", end="", gateway="", reservedIPs=[], excludeIPs=[]),
    "a /30": v4("192.168.8.4/30"),
    "a /126": v6("fd00:8::4/126"),
    "the whole range, ends included": v4(start="192.168.8.0", end="192.168.8.255"),
    "one address": v4(start="192.168.8.7", end="192.168.8.7"),
    "one IPv6 address": v6(start="fd00:8::7", end="fd00:8::7"),
    "start of a /24 at .254 without end": v4(start="192.168.8.254"),
    "leading zero octet": v4("0.0.1.0/24", start="0.0.1.100"),
    "IPv6 far apart": v6(
        "2001:db8:acad:3::/64", start="2001:db8:acad:3::ff", end="2001:db8:acad:3:ffff:ffff:ffff:fffe"
    ),
    "last IPv6 address": v6(start="fd00:8::ffff:ffff:ffff:ffff"),
    "another spelling": v6("FD00:0008::/64", start="fd00:8:0::1", gateway="fd00:8::0:1"),
    "duplicates in lists": v4(excludeIPs=["192.168.8.9"] * 2, reservedIPs=["192.168.8.8"] * 2),
    "long lists": v6(
        excludeIPs=excluded(MAX_EXCLUDED),
        reservedIPs=[str(IPv6Address("fd00:8::2:0") + i) for i in range(MAX_RESERVED)],
    ),
    "link-local": v6("fe80::/120"),
}

BAD_TEXT = ("192.168.8", "192.168.8.256", "router", "fe80::1%eth0", "192.168.8.1/24")
OUTSIDE = ("192.168.9.1", "192.168.7.255", "fd00:8::1")
DENIED = [
    pytest.param(
        subnet({"version": "123", "cidr": "10.0.0.0/24"}), 'Unsupported value: "123"', id="R1 version"
    ),
    *(
        pytest.param(v4(**{field: bad}), f'{field} "{bad}" is not an IP address', id=f"R2 {field} {bad}")
        for field in ("start", "end", "gateway")
        for bad in BAD_TEXT
    ),
    *(
        pytest.param(v4(**{field: ["192.168.8.7", bad]}), f'{field}: "{bad}" is not', id=f"R2 {field} {bad}")
        for field in ("reservedIPs", "excludeIPs")
        for bad in (*BAD_TEXT, "")
    ),
    *(
        pytest.param(v4(bad), f'"{bad}" is not a network such as', id=f"R3 {bad}")
        for bad in ("192.168.8/24", "192.168.8.0", "192.168.8.0/33", "fd00::/129", "", "::ffff:10.0.0.0/120")
    ),
    pytest.param(v4("192.168.8.10/24"), "write 192.168.8.0/24", id="R4 IPv4"),
    pytest.param(v6("fd00:8::1/64"), "write fd00:8::/64", id="R4 IPv6"),
    *(
        pytest.param(v4(**{field: bad}), f"{field} {bad} lies outside 192.168.8.0/24", id=f"R5 {field} {bad}")
        for field in ("start", "end", "gateway")
        for bad in OUTSIDE
    ),
    *(
        pytest.param(
            v4(**{field: ["192.168.8.7", bad]}), f"{field}: {bad} lies outside", id=f"R5 {field} {bad}"
        )
        for field in ("reservedIPs", "excludeIPs")
        for bad in OUTSIDE
    ),
    pytest.param(
        v4(start="192.168.8.11", end="192.168.8.10"),
        "no usable address: start 192.168.8.11 is behind end 192.168.8.10",
        id="R6 IPv4",
    ),
    pytest.param(v4(start="192.168.8.128", end="192.168.8.127"), "no usable address", id="R6 at a carry"),
    pytest.param(v6(start="fd00:8::1:0", end="fd00:8::ffff"), "no usable address", id="R6 IPv6"),
    pytest.param(
        subnet({"version": "6", "cidr": "fd00::/64", "gateway": "10.0.0.1"}), "lies outside", id="R7"
    ),
    pytest.param(
        subnet({"version": "6", "cidr": "10.0.0.0/24"}), "is IPv4: version must be the same", id="R18 IPv4"
    ),
    pytest.param(
        subnet({"version": "4", "cidr": "fd00::/64"}), "is IPv6: version must be the same", id="R18 IPv6"
    ),
    *(
        pytest.param(manifest, "too small for pods", id=f"R16 {manifest['spec']['range']['cidr']}")
        for manifest in (v4("10.0.0.1/32"), v4("10.0.0.2/31"), v6("fd00::1/128"), v6("fd00::2/127"))
    ),
    pytest.param(v4(start="192.168.8.255"), "start is the broadcast address", id="R19 start is broadcast"),
    pytest.param(v4(end="192.168.8.0"), "end is the network address", id="R19 end is the network"),
    pytest.param(v6(end="fd00:8::"), "end is the network address", id="R19 IPv6"),
    pytest.param(subnet(FULL, network=""), "at least 1 chars long", id="B1 no network"),
    pytest.param(subnet(FULL, netID=4095), "less than or equal to 4094", id="N15 VLAN id 4095"),
    pytest.param(subnet(FULL, netID=-1), "greater than or equal to 0", id="N15 VLAN id -1"),
    pytest.param(v6(excludeIPs=excluded(MAX_EXCLUDED + 1)), "Too many", id="too many exclusions"),
]


def changed(**fields: Any) -> Manifest:
    return subnet({k: v for k, v in {**FULL, **fields}.items() if v is not None})


UPDATES_ACCEPTED = {
    "reserved": (changed(), changed(reservedIPs=["192.168.56.20"])),
    "reserved removed": (changed(), changed(reservedIPs=None)),
    "private": (changed(), subnet(FULL, config={"private": True})),
    "autoNatOutgoing": (subnet(FULL, config={"autoNatOutgoing": True}), changed()),
    "exclusions in another order": (changed(), changed(excludeIPs=FULL["excludeIPs"][::-1])),
    "an exclusion written twice": (changed(), changed(excludeIPs=[*FULL["excludeIPs"], "192.168.56.13"])),
    "empty exclusions instead of none": (changed(excludeIPs=None), changed(excludeIPs=[])),
    "empty start instead of none": (changed(start=None), changed(start="")),
    "end grown": (changed(), changed(end="192.168.56.201")),
    "end grown to broadcast": (changed(), changed(end="192.168.56.255")),
    "end given up": (changed(), changed(end=None)),
    "default end written out": (changed(end=None), changed(end="192.168.56.254")),
    "broadcast instead of the default": (changed(end=None), changed(end="192.168.56.255")),
    "IPv6 end grown over a carry": (v6(end="fd00:8::ffff"), v6(end="fd00:8::1:0")),
    "IPv6 default end written out": (v6(), v6(end="fd00:8::ffff:ffff:ffff:ffff")),
    "IPv6 end given up": (v6(end="fd00:8::ffff:ffff:ffff:ffff"), v6()),
}
UPDATES_DENIED = [
    pytest.param(changed(), subnet(FULL, network="other"), "network is immutable", id="B8 network"),
    pytest.param(changed(), subnet(FULL, netID=5), "netID is immutable", id="B8 netID added"),
    pytest.param(subnet(FULL, netID=5), changed(), "netID is immutable", id="B8 netID removed"),
    pytest.param(changed(), changed(start="192.168.56.9"), "start is immutable", id="B8 start"),
    pytest.param(changed(), changed(start=None), "start is immutable", id="B8 start removed"),
    pytest.param(changed(), changed(gateway="192.168.56.2"), "gateway is immutable", id="B8 gateway"),
    pytest.param(changed(gateway=None), changed(), "gateway is immutable", id="B8 gateway added"),
    pytest.param(changed(), changed(cidr="192.168.56.0/23"), "cidr is immutable", id="B8 cidr"),
    pytest.param(changed(), changed(end="192.168.56.199"), "end can only grow", id="B8 end shrunk"),
    pytest.param(changed(), changed(end="192.168.56.127"), "end can only grow", id="B8 end at a carry"),
    pytest.param(changed(end=None), changed(), "end can only grow", id="B8 end added"),
    pytest.param(changed(end=None), changed(end="192.168.56.253"), "end can only grow", id="B8 end by one"),
    pytest.param(
        changed(end="192.168.56.255"), changed(end=None), "end can only grow", id="B8 broadcast lost"
    ),
    pytest.param(v6(), v6(end="fd00:8::ffff:ffff:ffff:fffe"), "end can only grow", id="B8 IPv6 end added"),
    pytest.param(v6(end="fd00:8::1:0"), v6(end="fd00:8::ffff"), "end can only grow", id="B8 IPv6 end shrunk"),
    pytest.param(
        changed(),
        changed(excludeIPs=["192.168.56.13"]),
        "excludeIPs are immutable",
        id="B8 exclusion removed",
    ),
    pytest.param(
        changed(),
        changed(excludeIPs=[*FULL["excludeIPs"], "192.168.56.15"]),
        "excludeIPs are immutable",
        id="B8 exclusion added",
    ),
    pytest.param(changed(), changed(excludeIPs=None), "excludeIPs are immutable", id="B8 exclusions removed"),
    pytest.param(changed(excludeIPs=None), changed(), "excludeIPs are immutable", id="B8 exclusions set"),
    pytest.param(changed(), changed(version="6"), "version is immutable", id="B9 version"),
]


@pytest.mark.spec("R8", "R15", "R17")
@pytest.mark.parametrize("manifest", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_subnet_of_the_original_is_accepted(api: RawApi, manifest: Manifest) -> None:
    assert api.try_create(SUBNETS, manifest) == ""


@pytest.mark.spec("R1", "R2", "R3", "R4", "R5", "R6", "R7", "R16", "R18", "R19", "B1", "N15")
@pytest.mark.parametrize(("manifest", "reason"), DENIED)
def test_a_wrong_subnet_is_refused_naming_the_value(api: RawApi, manifest: Manifest, reason: str) -> None:
    assert reason in api.try_create(SUBNETS, manifest)


@pytest.mark.spec("B8", "B10", "B11")
@pytest.mark.parametrize(("old", "new"), UPDATES_ACCEPTED.values(), ids=UPDATES_ACCEPTED.keys())
def test_a_subnet_can_be_changed_where_no_address_is_lost(api: RawApi, old: Manifest, new: Manifest) -> None:
    assert api.try_update(SUBNETS, old, new) == ""


@pytest.mark.spec("B8", "B9")
@pytest.mark.parametrize(("old", "new", "reason"), UPDATES_DENIED)
def test_a_change_that_addresses_would_not_survive_is_refused(
    api: RawApi, old: Manifest, new: Manifest, reason: str
) -> None:
    assert reason in api.try_update(SUBNETS, old, new)


@pytest.mark.spec("R6")
@pytest.mark.parametrize("bit", range(8, 32, 5))
def test_the_order_of_addresses_is_judged_right_at_every_bit(api: RawApi, bit: int) -> None:
    high = IPv4Address(int(IPv4Address("10.0.0.0")) | 1 << (31 - bit))
    low = high - 1
    assert api.try_create(SUBNETS, v4("10.0.0.0/8", start=str(low), end=str(high))) == ""
    assert "no usable" in api.try_create(SUBNETS, v4("10.0.0.0/8", start=str(high), end=str(low)))


@pytest.mark.spec("R6")
@pytest.mark.parametrize("bit", range(33, 128, 13))
def test_the_order_of_ipv6_addresses_is_judged_right_at_every_bit(api: RawApi, bit: int) -> None:
    high = IPv6Address(int(IPv6Address("fd00::")) | 1 << (127 - bit))
    low = high - 1
    assert api.try_create(SUBNETS, v6("fd00::/32", start=str(low), end=str(high))) == ""
    assert "no usable" in api.try_create(SUBNETS, v6("fd00::/32", start=str(high), end=str(low)))
