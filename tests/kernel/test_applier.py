"""The applier makes the kernel be what the scopes want: seen through ``ip`` and ``bridge``."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from msgspec.structs import replace

from hybridnet.kernel.applier import KernelApplier
from hybridnet.kernel.errors import AlreadyExists, ConflictingWant, DeviceNotFound, ObjectNotFound
from hybridnet.model.address import Family
from hybridnet.plan.state import (
    PROTOCOL,
    FdbEntry,
    KernelObject,
    LinkAddress,
    ProxyNeighbour,
    Route,
    RouteType,
    Rule,
    RuleAction,
    Scope,
    Sysctl,
    VxlanLink,
)
from tests.kernel.netns import Net

TABLES = range(300, 400)
TUNNEL = VxlanLink("ovl", 7, "nic", ip_address("192.0.2.1"), 8472, "02:00:00:00:00:11", 1430)


def a_pod(number: int) -> list[KernelObject]:
    return [
        Route(300, ip_network(f"10.0.0.{number}/32"), "pods"),
        Route(300, ip_network(f"fd00::{number}/128"), "pods"),
        ProxyNeighbour("nic", ip_address(f"10.0.0.{number}")),
        ProxyNeighbour("nic", ip_address(f"fd00::{number}")),
    ]


def an_overlay() -> list[KernelObject]:
    return [
        TUNNEL,
        Sysctl("net/ipv4/conf/ovl/rp_filter", "0"),
        LinkAddress("ovl", ip_interface("10.0.0.254/32"), Scope.LINK),
        Route(301, ip_network("10.0.0.0/16"), "ovl", source=ip_address("10.0.0.254")),
        Route(301, ip_network("10.9.0.0/16"), type=RouteType.UNREACHABLE),
        FdbEntry("ovl", "02:00:00:00:00:22", ip_address("192.0.2.2")),
        FdbEntry("ovl", "ff:ff:ff:ff:ff:ff", ip_address("192.0.2.2")),
        FdbEntry("ovl", "ff:ff:ff:ff:ff:ff", ip_address("192.0.2.3")),
        Rule(Family.V4, 1000, RuleAction.LOOKUP, 301, 0x1, 0xF),
        Rule(Family.V6, 1001, RuleAction.GOTO, 1002),
        Rule(Family.V6, 1002, RuleAction.NOP),
    ]


@pytest.fixture
def node(net: Net) -> Net:
    net.add_device("nic", "192.0.2.1/24")
    net.add_device("pods")
    return net


@pytest.fixture
def applier(node: Net) -> Iterator[KernelApplier]:
    with KernelApplier(node.namespace) as opened:
        opened.adopt(TABLES)
        yield opened


def test_it_writes_all_kinds_and_a_second_time_nothing(node: Net, applier: KernelApplier) -> None:
    result = applier.apply("overlay", an_overlay())
    assert result.failures == []
    assert set(result.written) == set(an_overlay())
    assert f"10.0.0.0/16 dev ovl proto {PROTOCOL} scope link src 10.0.0.254" in node.ip(
        "route show table 301"
    )
    assert "unreachable 10.9.0.0/16" in node.ip("route show table 301")
    assert "fwmark 0x1/0xf lookup 301" in node.ip("rule show")
    assert "goto 1002" in node.ip("-6 rule show")
    assert "nop" in node.ip("-6 rule show")
    fdb = node.shell("bridge", "fdb", "show", "dev", "ovl")
    assert "02:00:00:00:00:22 dst 192.0.2.2 self permanent" in fdb
    assert fdb.count("ff:ff:ff:ff:ff:ff") == 2
    assert "10.0.0.254/32" in node.ip("address show dev ovl")
    again = applier.apply("overlay", an_overlay())
    assert (again.written, again.removed, again.failures) == ([], [], [])


def test_an_empty_want_removes_all_of_the_scope_and_nothing_else(node: Net, applier: KernelApplier) -> None:
    applier.apply("pod 1", a_pod(1))
    applier.apply("pod 2", a_pod(2))
    result = applier.apply("pod 1", [])
    assert result.failures == []
    assert set(result.removed) == set(a_pod(1))
    assert node.ip("route show table 300") == f"10.0.0.2 dev pods proto {PROTOCOL} scope link \n"
    assert "fd00::1" not in node.ip("-6 route show table 300")
    assert "10.0.0.1 " not in node.ip("neighbour show proxy")
    assert "10.0.0.2 " in node.ip("neighbour show proxy")


def test_removal_goes_from_what_leads_in_to_what_is_led_to(node: Net, applier: KernelApplier) -> None:
    applier.apply("overlay", an_overlay())
    kinds = [type(item) for item in applier.apply("overlay", []).removed]
    assert kinds.index(Rule) < kinds.index(FdbEntry) < kinds.index(Route) < kinds.index(LinkAddress)
    assert kinds[-1] is VxlanLink
    assert "ovl" not in node.ip("link show")


def test_an_object_lives_as_long_as_one_scope_wants_it(node: Net, applier: KernelApplier) -> None:
    applier.apply("a", a_pod(1))
    applier.apply("b", a_pod(1))
    applier.apply("a", [])
    assert "10.0.0.1" in node.ip("route show table 300")
    applier.apply("b", [])
    assert node.ip("route show table 300") == ""


def test_two_scopes_cannot_want_one_object_differently(node: Net, applier: KernelApplier) -> None:
    route = Route(300, ip_network("10.0.0.1/32"), "pods")
    applier.apply("a", [route])
    result = applier.apply("b", [replace(route, device="nic")])
    assert [type(error) for _, error in result.failures] == [ConflictingWant]
    assert "dev pods" in node.ip("route show table 300")
    applier.apply("a", [])
    assert applier.apply("b", [replace(route, device="nic")]).failures == []
    assert "dev nic" in node.ip("route show table 300")


@pytest.mark.parametrize("family", Family)
def test_a_route_changes_in_place_between_all_its_forms(
    node: Net, applier: KernelApplier, family: Family
) -> None:
    destination = ip_network("10.5.0.0/16" if family is Family.V4 else "fd05::/64")
    gateway = ip_address("198.51.100.1" if family is Family.V4 else "fe80::1")
    forms = [
        Route(300, destination, "nic"),
        Route(300, destination, "pods", gateway=gateway, onlink=True),
        Route(300, destination, "pods"),
        Route(300, destination, type=RouteType.UNREACHABLE),
        Route(300, destination, "nic", gateway=gateway, onlink=True),
        Route(300, destination, type=RouteType.THROW),
        Route(300, destination, "nic"),
    ]
    for form in forms:
        result = applier.apply("x", [form])
        assert result.failures == []
        assert len(node.ip(f"-{family} route show table 300").splitlines()) == 1
        assert not applier.audit()


@pytest.mark.parametrize(("gateway", "default"), [("203.0.113.1", "0.0.0.0/0"), ("fd99::1", "::/0")])
def test_a_gateway_s_own_route_is_written_first(
    node: Net, applier: KernelApplier, gateway: str, default: str
) -> None:
    via = Route(300, ip_network(default), "pods", gateway=ip_address(gateway))
    result = applier.apply("x", [via, Route(300, ip_network(gateway), "pods")])
    assert result.failures == []
    assert f"default via {gateway}" in node.ip(f"-{via.family} route show table 300")


def test_a_changed_rule_is_added_before_the_old_one_goes(node: Net, applier: KernelApplier) -> None:
    rule = Rule(Family.V4, 1000, RuleAction.LOOKUP, 301)
    applier.apply("x", [rule])
    result = applier.apply("x", [replace(rule, target=302)])
    assert result.failures == []
    assert [line for line in node.ip("rule show").splitlines() if line.startswith("1000:")] == [
        f"1000:\tfrom all lookup 302 proto {PROTOCOL}"
    ]


def test_one_failure_is_one_object_s_failure(node: Net, applier: KernelApplier) -> None:
    bad_device = Route(300, ip_network("10.0.0.7/32"), "nowhere")
    bad_knob = Sysctl("net/ipv4/conf/nowhere/rp_filter", "0")
    unreachable = Route(300, ip_network("10.0.0.8/32"), "pods", gateway=ip_address("203.0.113.1"))
    result = applier.apply("x", [bad_device, unreachable, bad_knob, *a_pod(1)])
    assert {item: type(error).__name__ for item, error in result.failures} == {
        bad_device: "DeviceNotFound",
        bad_knob: "ObjectNotFound",
        unreachable: "Unreachable",
    }
    assert set(result.written) == set(a_pod(1))
    node.add_device("nowhere")
    retried = applier.apply("x", [bad_device, bad_knob, *a_pod(1)])
    assert retried.failures == []
    assert set(retried.written) == {bad_device, bad_knob}


def test_a_failure_says_what_to_do(applier: KernelApplier) -> None:
    result = applier.apply("x", [Route(300, ip_network("10.0.0.7/32"), "nowhere")])
    _, error = result.failures[0]
    assert isinstance(error, DeviceNotFound)
    assert "read device nowhere" in str(error)
    assert "check the device's name" in str(error)


def test_an_absent_optional_knob_is_no_failure(applier: KernelApplier) -> None:
    knob = Sysctl("net/ipv4/neigh/default/gc_thresh1_none", "1024", optional=True)
    assert applier.apply("x", [knob]).failures == []
    assert isinstance(applier.apply("x", [replace(knob, optional=False)]).failures[0][1], ObjectNotFound)


def test_a_foreign_route_is_neither_overwritten_nor_removed(node: Net, applier: KernelApplier) -> None:
    node.ip("route add 10.0.0.1/32 dev nic table 300 proto static")
    route = Route(300, ip_network("10.0.0.1/32"), "pods")
    result = applier.apply("x", [route])
    assert [type(error) for _, error in result.failures] == [AlreadyExists]
    applier.apply("x", [])
    applier.prune()
    applier.audit()
    assert "10.0.0.1 dev nic proto static" in node.ip("route show table 300")


def test_a_foreign_address_is_neither_overwritten_nor_removed(node: Net, applier: KernelApplier) -> None:
    before = node.ip("address show dev nic")
    address = LinkAddress("nic", ip_interface("192.0.2.1/24"))
    assert [type(error) for _, error in applier.apply("x", [address]).failures] == [AlreadyExists]
    applier.apply("x", [])
    applier.prune()
    assert node.ip("address show dev nic") == before


def test_a_changed_address_scope_is_applied(node: Net, applier: KernelApplier) -> None:
    address = LinkAddress("pods", ip_interface("10.7.0.1/32"))
    applier.apply("x", [address])
    assert applier.apply("x", [replace(address, scope=Scope.LINK)]).failures == []
    assert "inet 10.7.0.1/32 scope link" in node.ip("address show dev pods")


def test_a_new_process_adopts_and_writes_nothing(node: Net, applier: KernelApplier) -> None:
    wanted = [*an_overlay(), *a_pod(1)]
    applier.apply("all", wanted)
    with KernelApplier(node.namespace) as successor:
        adopted = successor.adopt(TABLES)
        assert {item for item in wanted if not isinstance(item, Sysctl)} == set(adopted)
        result = successor.apply("all", wanted)
        assert [item for item in result.written if not isinstance(item, Sysctl)] == []


def test_what_nobody_wants_is_removed_only_after_prune(node: Net, applier: KernelApplier) -> None:
    applier.apply("old", [*a_pod(1), *an_overlay()])
    with KernelApplier(node.namespace) as successor:
        successor.adopt(TABLES)
        successor.apply("new", a_pod(2))
        assert not successor.audit()
        assert "10.0.0.1" in node.ip("route show table 300")
        assert successor.prune().failures == []
        assert "10.0.0.1" not in node.ip("route show table 300")
        assert "10.0.0.2" in node.ip("route show table 300")
        assert "ovl" not in node.ip("link show")
        assert "lookup 301" not in node.ip("rule show")


def test_routes_of_ours_in_tables_of_others_are_left_alone(node: Net, applier: KernelApplier) -> None:
    node.ip(f"route add 10.0.0.1/32 dev nic table 20000 proto {PROTOCOL}")
    applier.prune()
    applier.audit()
    assert "10.0.0.1" in node.ip("route show table 20000")


def test_an_audit_repairs_and_tells_what_was_wrong(node: Net, applier: KernelApplier) -> None:
    applier.apply("overlay", an_overlay())
    applier.apply("pod", a_pod(1))
    applier.prune()
    assert not applier.audit()
    node.ip("route del 10.0.0.1/32 table 300")
    node.ip("neighbour del proxy fd00::1 dev nic")
    node.ip(f"route replace 10.0.0.0/16 dev nic table 301 proto {PROTOCOL}")
    node.ip("rule del priority 1000")
    node.ip(f"rule add priority 1005 lookup 301 protocol {PROTOCOL}")
    node.shell("bridge", "fdb", "del", "02:00:00:00:00:22", "dev", "ovl", "dst", "192.0.2.2")
    node.shell("bridge", "fdb", "append", "ff:ff:ff:ff:ff:ff", "dev", "ovl", "dst", "192.0.2.9")
    node.shell("sysctl", "-qw", "net.ipv4.conf.ovl.rp_filter=2")
    drift = applier.audit()
    assert drift.failures == []
    overlay = an_overlay()
    assert set(drift.missing) == {a_pod(1)[0], a_pod(1)[3], overlay[8], overlay[5]}
    assert set(drift.different) == {overlay[3], overlay[1]}
    assert set(drift.surplus) == {
        Rule(Family.V4, 1005, RuleAction.LOOKUP, 301),
        FdbEntry("ovl", "ff:ff:ff:ff:ff:ff", ip_address("192.0.2.9")),
    }
    assert not applier.audit()
    assert node.shell("cat", "/proc/sys/net/ipv4/conf/ovl/rp_filter").strip() == "0"


def test_an_audit_removes_the_double_of_a_rule(node: Net, applier: KernelApplier) -> None:
    rule = Rule(Family.V4, 1000, RuleAction.LOOKUP, 301)
    applier.apply("x", [rule])
    applier.prune()
    node.ip(f"rule add priority 1000 lookup 302 protocol {PROTOCOL}")
    drift = applier.audit()
    assert drift.surplus == [replace(rule, target=302)]
    assert node.ip("rule show").count("1000:") == 1
    assert "lookup 301" in node.ip("rule show")


def test_a_deleted_tunnel_comes_back_with_all_that_was_on_it(node: Net, applier: KernelApplier) -> None:
    applier.apply("overlay", an_overlay())
    node.ip("link del ovl")
    drift = applier.audit()
    assert drift.failures == []
    assert TUNNEL in drift.missing
    assert not applier.audit()


def test_a_changed_tunnel_is_recreated_and_other_scopes_objects_written_again(
    node: Net, applier: KernelApplier
) -> None:
    others = [Route(302, ip_network("10.44.0.0/16"), "ovl"), ProxyNeighbour("ovl", ip_address("10.44.0.1"))]
    applier.apply("overlay", an_overlay())
    applier.apply("others", others)
    moved = replace(TUNNEL, vni=8)
    result = applier.apply("overlay", [moved, *an_overlay()[1:]])
    assert result.failures == []
    assert set(others) <= set(result.written)
    assert "vxlan id 8" in node.ip("-d link show ovl")
    assert not applier.audit()


def test_a_tunnel_s_mac_and_mtu_change_without_losing_a_route(node: Net, applier: KernelApplier) -> None:
    applier.apply("overlay", an_overlay())
    index = applier.devices.index("ovl")
    result = applier.apply("overlay", [replace(TUNNEL, mtu=1400, mac="02:00:00:00:00:12"), *an_overlay()[1:]])
    assert len(result.written) == 1
    shown = node.ip("link show ovl")
    assert shown.startswith(f"{index}:")
    assert "mtu 1400" in shown
    assert "02:00:00:00:00:12" in shown
    assert not applier.audit()


def test_a_device_that_came_back_gets_its_objects_after_being_forgotten(
    node: Net, applier: KernelApplier
) -> None:
    applier.apply("pod", a_pod(1))
    node.ip("link del pods")
    node.add_device("pods")
    applier.forget_device("pods")
    result = applier.apply("pod", a_pod(1))
    assert result.failures == []
    assert set(result.written) == set(a_pod(1)[:2])
    assert "10.0.0.1" in node.ip("route show table 300")


def test_a_tunnel_that_went_with_its_parent_comes_back(node: Net, applier: KernelApplier) -> None:
    applier.apply("overlay", an_overlay())
    applier.apply("other", [Route(302, ip_network("10.44.0.0/16"), "ovl")])
    node.ip("link del nic")
    node.add_device("nic", "192.0.2.1/24")
    applier.forget_device("nic")
    assert applier.apply("overlay", an_overlay()).failures == []
    assert "10.44.0.0/16 dev ovl" in node.ip("route show table 302")
    assert not applier.audit()


def test_a_tunnel_is_made_on_its_parent_s_present_index(node: Net, applier: KernelApplier) -> None:
    applier.apply("overlay", an_overlay())
    node.ip("link del nic")
    node.add_device("nic", "192.0.2.1/24")
    result = applier.apply("overlay", [replace(TUNNEL, vni=8), *an_overlay()[1:]])
    assert result.failures == []
    assert "vxlan id 8" in node.ip("-d link show ovl")


def test_a_new_index_of_a_known_device_is_noticed(node: Net, applier: KernelApplier) -> None:
    applier.apply("pod 1", a_pod(1))
    node.ip("link del pods")
    node.add_device("pods")
    result = applier.apply("pod 2", a_pod(2))
    assert result.failures == []
    assert "10.0.0.2 dev pods" in node.ip("route show table 300")


def test_removing_what_the_kernel_dropped_already_succeeds(node: Net, applier: KernelApplier) -> None:
    applier.apply("pod", a_pod(1))
    node.ip("link del pods")
    node.ip("neighbour del proxy 10.0.0.1 dev nic")
    result = applier.apply("pod", [])
    assert result.failures == []
    assert set(result.removed) == set(a_pod(1))


def test_without_adoption_existing_objects_of_ours_are_recognised(node: Net, applier: KernelApplier) -> None:
    wanted = [*an_overlay(), *a_pod(1)]
    applier.apply("all", wanted)
    with KernelApplier(node.namespace) as blind:
        changed = [
            replace(item, device="nic") if isinstance(item, Route) and item.device == "pods" else item
            for item in wanted
        ]
        assert blind.apply("all", changed).failures == []
    assert "10.0.0.1 dev nic" in node.ip("route show table 300")
