"""Routes, rules, neighbours and addresses: written by us, read by others; written by others, none of ours."""

import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from pyroute2 import IPRoute

from hybridnet.kernel.address import add_address, delete_address, dump_addresses
from hybridnet.kernel.errors import AlreadyExists, ObjectNotFound
from hybridnet.kernel.link import Devices
from hybridnet.kernel.neighbour import (
    NeighbourState,
    delete_fdb,
    delete_neighbour,
    delete_proxy,
    dump_fdb,
    dump_neighbours,
    dump_proxies,
    set_fdb,
    set_neighbour,
    set_proxy,
)
from hybridnet.kernel.route import delete_route, dump_routes, set_route
from hybridnet.kernel.rule import add_rule, delete_rule, dump_rules
from hybridnet.model.address import Family
from hybridnet.plan.state import (
    PROTOCOL,
    FdbEntry,
    LinkAddress,
    ProxyNeighbour,
    Route,
    RouteType,
    Rule,
    RuleAction,
    Scope,
)
from tests.kernel.netns import Net

ROUTES = [
    (Route(300, ip_network("10.1.0.0/16"), "nic"), "10.1.0.0/16 dev nic proto {} scope link"),
    (
        Route(300, ip_network("0.0.0.0/0"), "nic", gateway=ip_address("192.0.2.9")),
        "default via 192.0.2.9 dev nic",
    ),
    (
        Route(300, ip_network("10.2.0.0/16"), "nic", gateway=ip_address("198.51.100.1"), onlink=True),
        "10.2.0.0/16 via 198.51.100.1 dev nic proto {} onlink",
    ),
    (
        Route(40000, ip_network("10.3.0.1/32"), "nic", source=ip_address("192.0.2.1")),
        "10.3.0.1 dev nic proto {} scope link src 192.0.2.1",
    ),
    (Route(255 + 1, ip_network("10.4.0.0/16"), type=RouteType.THROW), "throw 10.4.0.0/16 proto {}"),
    (Route(300, ip_network("10.5.0.0/16"), type=RouteType.UNREACHABLE), "unreachable 10.5.0.0/16 proto {}"),
    (Route(300, ip_network("10.6.0.0/16"), type=RouteType.BLACKHOLE), "blackhole 10.6.0.0/16 proto {}"),
    (Route(300, ip_network("fd01::/64"), "nic"), "fd01::/64 dev nic proto {} metric 1024"),
    (
        Route(300, ip_network("::/0"), "nic", gateway=ip_address("fe80::9")),
        "default via fe80::9 dev nic proto {}",
    ),
    (
        Route(40000, ip_network("fd02::1/128"), "nic", source=ip_address("2001:db8::1")),
        "fd02::1 dev nic proto {} src 2001:db8::1",
    ),
    (
        Route(300, ip_network("fd03::/64"), type=RouteType.UNREACHABLE),
        "unreachable fd03::/64 dev lo proto {}",
    ),
    (Route(300, ip_network("fd04::/64"), type=RouteType.THROW), "throw fd04::/64 dev lo proto {}"),
]

RULES = [
    Rule(Family.V4, 2000, RuleAction.LOOKUP, 39999),
    Rule(Family.V4, 2010, RuleAction.LOOKUP, 254, 0x10000000, 0x10000000),
    Rule(Family.V4, 2030, RuleAction.GOTO, 6990, 0, 0x0FFF0000),
    Rule(Family.V4, 6990, RuleAction.NOP),
    Rule(Family.V6, 2000, RuleAction.LOOKUP, 39999, 0x10000, 0x0FFF0000),
    Rule(Family.V6, 2030, RuleAction.GOTO, 6990),
    Rule(Family.V6, 6990, RuleAction.NOP),
]


@pytest.fixture
def node(net: Net) -> Net:
    net.add_device("nic", "192.0.2.1/24", "2001:db8::1/64")
    net.ip("link add ovl type vxlan id 7 dev nic local 192.0.2.1 dstport 8472 nolearning")
    net.ip("link set ovl up")
    return net


@pytest.fixture
def name_of(node: Net) -> Callable[[int], str]:
    devices = Devices(node.rtnl)
    devices.refresh()
    return devices.name


@pytest.fixture
def reader(node: Net) -> Iterator[IPRoute]:
    with IPRoute(netns=node.name) as opened:
        yield opened


@pytest.mark.parametrize(("route", "shown"), ROUTES)
def test_a_route_is_what_ip_shows_and_what_is_read_back(
    node: Net, name_of: Callable[[int], str], route: Route, shown: str
) -> None:
    index = node.index_of(route.device) if route.device else 0
    node.rtnl.request(set_route(route, index, replace=False))
    assert shown.format(PROTOCOL) in node.ip(f"-{route.family} route show table {route.table}")
    assert dump_routes(node.rtnl, name_of) == [route]
    assert dump_routes(node.rtnl, name_of, table=route.table) == [route]
    assert dump_routes(node.rtnl, name_of, table=12345) == []
    with pytest.raises(AlreadyExists):
        node.rtnl.request(set_route(route, index, replace=False))
    node.rtnl.request(set_route(route, index, replace=True))
    node.rtnl.request(delete_route(route, index))
    assert node.ip(f"-{route.family} route show table {route.table}") == ""
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_route(route, index))


@pytest.mark.parametrize("destination", ["10.1.0.0/16", "fd01::/64"])
def test_a_route_of_another_protocol_is_neither_read_nor_deleted(
    node: Net, name_of: Callable[[int], str], destination: str
) -> None:
    family = ip_network(destination).version
    node.ip(f"-{family} route add {destination} dev nic table 300 proto static")
    route = Route(300, ip_network(destination), "nic")
    assert dump_routes(node.rtnl, name_of) == []
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_route(route, node.index_of("nic")))
    assert route in dump_routes(node.rtnl, name_of, protocol=None, table=300)


def test_a_route_with_a_metric_is_none_of_ours(node: Net, name_of: Callable[[int], str]) -> None:
    node.ip(f"route add 10.1.0.0/16 dev nic table 300 metric 7 proto {PROTOCOL}")
    node.ip(f"-6 route add fd01::/64 dev nic table 300 metric 7 proto {PROTOCOL}")
    assert dump_routes(node.rtnl, name_of) == []


def test_the_default_route_of_several_gateways_names_its_first_device(
    node: Net, name_of: Callable[[int], str]
) -> None:
    node.ip("route add default nexthop via 192.0.2.8 dev nic nexthop via 192.0.2.9 dev nic")
    found = dump_routes(node.rtnl, name_of, protocol=None, table=254)
    assert [route.device for route in found if route.destination.prefixlen == 0] == ["nic"]


def test_rules_are_what_others_read_and_what_is_read_back(node: Net, reader: IPRoute) -> None:
    assert not any(node.rtnl.batch([add_rule(rule) for rule in RULES]))
    assert dump_rules(node.rtnl) == RULES
    for rule in RULES:
        family = {4: 2, 6: 10}[rule.family]
        (found,) = [r for r in reader.get_rules(family) if r.get("priority") == rule.priority]
        assert found["action"] == {RuleAction.LOOKUP: 1, RuleAction.GOTO: 2, RuleAction.NOP: 3}[rule.action]
        assert found.get("protocol") == PROTOCOL
        assert (found.get("fwmark") or 0, found.get("fwmask") or 0) == (rule.mark, rule.mask)
        if rule.action is RuleAction.LOOKUP:
            assert found.get("table") == rule.target
        if rule.action is RuleAction.GOTO:
            assert found.get("goto") == rule.target
    with pytest.raises(AlreadyExists):
        node.rtnl.request(add_rule(RULES[0]))
    assert not any(node.rtnl.batch([delete_rule(rule) for rule in RULES]))
    assert dump_rules(node.rtnl) == []
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_rule(RULES[0]))


def test_a_foreign_rule_is_neither_read_nor_deleted(node: Net) -> None:
    node.ip("rule add priority 2000 lookup 39999")
    assert dump_rules(node.rtnl) == []
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_rule(RULES[0]))


def test_of_two_rules_of_one_priority_the_named_one_is_deleted(node: Net) -> None:
    plain, marked = Rule(Family.V4, 9, RuleAction.LOOKUP, 300), Rule(Family.V4, 9, RuleAction.LOOKUP, 301)
    for kept, gone in ((plain, marked), (marked, plain)):
        node.rtnl.batch([add_rule(plain), add_rule(marked)])
        node.rtnl.request(delete_rule(gone))
        assert dump_rules(node.rtnl) == [kept]
        node.rtnl.request(delete_rule(kept))


@pytest.mark.parametrize("address", ["10.0.0.5", "fd00::5"])
def test_a_neighbour_proxy_keeps_our_protocol(node: Net, name_of: Callable[[int], str], address: str) -> None:
    proxy = ProxyNeighbour("nic", ip_address(address))
    index = node.index_of("nic")
    family = proxy.address.version
    node.ip(f"neighbour add proxy {ip_address(address) + 1} dev nic")
    node.rtnl.request(set_proxy(proxy, index))
    node.rtnl.request(set_proxy(proxy, index))
    assert f"{address} dev nic proxy proto {PROTOCOL}" in node.ip(f"-{family} neighbour show proxy")
    assert dump_proxies(node.rtnl, name_of) == [proxy]
    node.rtnl.request(delete_proxy(proxy, index))
    assert dump_proxies(node.rtnl, name_of) == []
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_proxy(proxy, index))


@pytest.mark.parametrize("address", ["10.0.0.5", "fd00::5"])
def test_a_neighbour_is_set_moved_failed_and_deleted(node: Net, address: str) -> None:
    index, value = node.index_of("ovl"), ip_address(address)

    def shown() -> dict[str, Any]:
        found = json.loads(node.ip(f"-j -{value.version} neighbour show dev ovl nud all"))
        return next((entry for entry in found if entry["dst"] == address), {})

    node.rtnl.request(set_neighbour(index, value, "02:00:00:00:00:21"))
    assert (shown()["lladdr"], shown()["state"]) == ("02:00:00:00:00:21", ["REACHABLE"])
    node.rtnl.request(set_neighbour(index, value, "02:00:00:00:00:22", NeighbourState.PERMANENT))
    assert (shown()["lladdr"], shown()["state"]) == ("02:00:00:00:00:22", ["PERMANENT"])
    (entry,) = [n for n in dump_neighbours(node.rtnl, index) if n.address == value]
    assert (entry.mac, entry.state, entry.protocol) == (
        "02:00:00:00:00:22",
        NeighbourState.PERMANENT,
        PROTOCOL,
    )
    node.rtnl.request(set_neighbour(index, value, "", NeighbourState.FAILED))
    assert shown().get("state", ["FAILED"]) == ["FAILED"]
    node.rtnl.request(set_neighbour(index, value, "02:00:00:00:00:21"))
    node.rtnl.request(delete_neighbour(index, value))
    assert shown().get("state", ["FAILED"]) == ["FAILED"]


def test_neighbours_of_other_devices_are_not_read(node: Net) -> None:
    node.rtnl.request(set_neighbour(node.index_of("nic"), ip_address("192.0.2.7"), "02:00:00:00:00:21"))
    assert IPv4Address("192.0.2.7") not in {
        n.address for n in dump_neighbours(node.rtnl, node.index_of("ovl"))
    }
    assert IPv4Address("192.0.2.7") in {n.address for n in dump_neighbours(node.rtnl)}


def test_a_unicast_mac_moves_and_a_multicast_mac_gathers_destinations(node: Net) -> None:
    index = node.index_of("ovl")
    unicast = [FdbEntry("ovl", "02:00:00:00:00:21", ip_address(f"192.0.2.{host}")) for host in (2, 3)]
    flood = [FdbEntry("ovl", "ff:ff:ff:ff:ff:ff", ip_address(f"192.0.2.{host}")) for host in (2, 3)]
    assert not any(node.rtnl.batch([set_fdb(entry, index) for entry in (*unicast, *flood, flood[0])]))
    shown = node.shell("bridge", "fdb", "show", "dev", "ovl")
    assert shown.count("02:00:00:00:00:21 dst 192.0.2.3 self permanent") == 1
    assert "02:00:00:00:00:21 dst 192.0.2.2" not in shown
    assert shown.count("ff:ff:ff:ff:ff:ff dst") == 2
    assert set(dump_fdb(node.rtnl, index, "ovl")) == {unicast[1], *flood}
    node.rtnl.request(delete_fdb(flood[0], index))
    assert set(dump_fdb(node.rtnl, index, "ovl")) == {unicast[1], flood[1]}
    node.rtnl.request(delete_fdb(flood[1], index))
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_fdb(flood[1], index))


def test_forwarding_entries_of_another_tunnel_are_not_read(node: Net) -> None:
    node.ip("link add other type vxlan id 8 dev nic local 192.0.2.1 dstport 8473 nolearning")
    node.shell("bridge", "fdb", "append", "02:00:00:00:00:99", "dev", "other", "dst", "192.0.2.9")
    assert dump_fdb(node.rtnl, node.index_of("ovl"), "ovl") == []


@pytest.mark.parametrize(
    "address",
    [
        LinkAddress("nic", ip_interface("10.0.0.1/24")),
        LinkAddress("nic", ip_interface("169.254.1.1/32"), Scope.LINK),
        LinkAddress("nic", ip_interface("fd00::1/64")),
        LinkAddress("nic", ip_interface("fe80::ecee:eeff:feee:eeee/64"), Scope.LINK),
    ],
)
def test_an_address_comes_without_route_and_without_duplicate_detection(
    node: Net, name_of: Callable[[int], str], reader: IPRoute, address: LinkAddress
) -> None:
    index = node.index_of("nic")
    family = address.address.version
    routes = node.ip(f"-{family} route show table all dev nic")
    node.rtnl.request(add_address(address, index))
    (found,) = [a for a in reader.get_addr(index=index) if a.get("address") == str(address.address.ip)]
    assert found["prefixlen"] == address.address.network.prefixlen
    assert found["scope"] == address.scope
    assert found.get("flags") & 0x200
    assert not found.get("flags") & 0x40
    assert dict(found["attrs"]).get("IFA_PROTO", PROTOCOL) == PROTOCOL
    new = set(node.ip(f"-{family} route show table all dev nic").splitlines()) - set(routes.splitlines())
    assert [line for line in new if not line.startswith(("local", "anycast", "multicast", "broadcast"))] == []
    assert dump_addresses(node.rtnl, name_of) == [address]
    with pytest.raises(AlreadyExists):
        node.rtnl.request(add_address(address, index))
    node.rtnl.request(delete_address(address, index))
    assert dump_addresses(node.rtnl, name_of) == []
    with pytest.raises(ObjectNotFound):
        node.rtnl.request(delete_address(address, index))


def test_foreign_addresses_are_read_only_when_asked(node: Net, name_of: Callable[[int], str]) -> None:
    assert dump_addresses(node.rtnl, name_of) == []
    everything = dump_addresses(node.rtnl, name_of, everything=True)
    assert LinkAddress("nic", ip_interface("192.0.2.1/24")) in everything
    assert LinkAddress("nic", ip_interface("2001:db8::1/64")) in everything


def test_where_the_kernel_keeps_no_protocol_a_tunnel_s_address_counts_as_ours(
    node: Net, name_of: Callable[[int], str]
) -> None:
    node.ip("address add 10.0.0.1/32 dev ovl noprefixroute")
    node.ip("address add 10.0.0.2/32 dev ovl")
    found = dump_addresses(node.rtnl, name_of, devices={node.index_of("ovl")})
    assert found == [LinkAddress("ovl", ip_interface("10.0.0.1/32"))]
