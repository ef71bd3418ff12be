"""Rules and tables as a function of the view."""

from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.model.address import Family
from hybridnet.plan import layout
from hybridnet.plan.exclusion import excluded_blocks
from hybridnet.plan.node import plan_node, plan_peer
from hybridnet.plan.routing import plan_rules, plan_tunnel_routes
from hybridnet.plan.segment import plan_segments, underlay_slots
from hybridnet.plan.state import FdbEntry, LinkAddress, Route, RouteType, Rule, VxlanLink
from tests.unit.plan_views import peer, subnet, view

OVERLAY = subnet("o4", "100.64.0.0/16", overlay=True)
UNDERLAY = subnet("u4", "172.31.1.0/24", gateway="172.31.1.1")


def routes(objects: object, table: int) -> dict[str, Route]:
    found = [o for o in objects if isinstance(o, Route) and o.table == table]  # type: ignore[attr-defined]
    return {str(r.destination): r for r in found}


@pytest.mark.spec("T93")
def test_the_order_of_lookups_is_fixed_and_the_same_for_both_families() -> None:
    node = view(OVERLAY, UNDERLAY, subnet("u6", "fd31:1::/64", gateway="fd31:1::1"))
    segments, _ = plan_segments(node)
    rules = plan_rules(node, segments.values())
    for family in Family:
        own = sorted((r for r in rules if r.family is family), key=lambda r: r.priority)
        tables = [r.target for r in own]
        assert tables[:3] == [layout.TABLE_LOCAL, layout.TABLE_TO_OVERLAY, layout.TABLE_TUNNEL]
        assert own[3].target == own[-1].priority == layout.PRIORITY_END
        assert tables[4:6] == [layout.TABLE_FROM_OVERLAY_NAT, layout.TABLE_FROM_OVERLAY]
        assert all(a.priority < b.priority for a, b in pairwise(own))


@pytest.mark.spec("T51", "T101")
def test_the_number_of_rules_does_not_grow_with_overlay_subnets() -> None:
    few, many = (
        view(OVERLAY),
        view(*(subnet(f"o{i}", f"100.{i}.0.0/16", overlay=True) for i in range(64, 128))),
    )
    counts = [len([o for o in plan_node(v).objects if isinstance(o, Rule)]) for v in (few, many)]
    assert counts[0] == counts[1]


@pytest.mark.spec("T54")
def test_an_excluded_overlay_address_is_thrown_past_the_tunnel() -> None:
    node = view(subnet("o4", "100.64.0.0/24", overlay=True, excluded=["100.64.0.9"]))
    table = routes(plan_node(node).objects, layout.TABLE_TO_OVERLAY)
    assert table["100.64.0.0/24"].device == "hybrvx4"
    assert table["100.64.0.9/32"].type is RouteType.THROW


@pytest.mark.spec("T26", "T28", "T53")
def test_underlay_pods_are_tunnelled_from_overlay_pods_also_where_the_node_is_not_a_member() -> None:
    node = view(OVERLAY, subnet("u4", "172.31.1.0/24", gateway="172.31.1.1", attached=False))
    plan = plan_node(node)
    table = routes(plan.objects, layout.TABLE_FROM_OVERLAY_NAT)
    assert table["172.31.1.0/24"].device == "hybrvx4"
    assert table["172.31.1.1/32"].type is RouteType.THROW
    assert "u4" not in plan.segments


@pytest.mark.spec("T37", "T41")
def test_without_masquerade_nothing_leaves_but_through_the_tunnel() -> None:
    node = view(subnet("o4", "100.64.0.0/16", overlay=True, auto_nat=False), UNDERLAY)
    plan = plan_node(node)
    table = routes(plan.objects, layout.TABLE_FROM_OVERLAY)
    assert table["0.0.0.0/0"].type is RouteType.UNREACHABLE
    assert table["172.31.1.1/32"].type is RouteType.UNREACHABLE
    other = plan_peer(peer("n2", 12), node, plan.tunnel)
    assert routes(other.objects, layout.TABLE_FROM_OVERLAY)["172.31.0.12/32"].device == "hybrvx4"


@pytest.mark.spec("T36", "T57")
def test_a_node_inside_an_underlay_cidr_is_not_taken_for_a_pod() -> None:
    node = view(OVERLAY, subnet("u4", "172.31.0.0/24", gateway="172.31.0.1"))
    other = plan_peer(peer("n2", 12), node, "hybrvx4")
    assert routes(other.objects, layout.TABLE_FROM_OVERLAY_NAT)["172.31.0.12/32"].type is RouteType.THROW


@pytest.mark.spec("T29", "T30")
def test_an_underlay_subnet_has_its_segment_on_link_and_its_own_gateway() -> None:
    plan = plan_node(view(UNDERLAY))
    slot = next(iter(underlay_slots([UNDERLAY]).values()))
    table = routes(plan.objects, layout.TABLE_UNDERLAY + slot)
    assert table["172.31.1.0/24"].device == "eth0"
    assert table["0.0.0.0/0"].gateway == ip_address("172.31.1.1")


def test_a_newer_subnet_never_takes_the_slot_of_an_older_one() -> None:
    old = [
        subnet(f"u{i}", f"10.{i // 256}.{i % 256}.0/24", created="2026-01-01T00:00:00Z") for i in range(300)
    ]
    new = [
        subnet(f"a{i}", f"11.{i // 256}.{i % 256}.0/24", created="2026-01-02T00:00:00Z") for i in range(300)
    ]
    before, after = underlay_slots(old), underlay_slots(old + new)
    assert all(after[key] == slot for key, slot in before.items())
    assert len(set(after.values())) == len(after) == 600


@pytest.mark.spec("T19")
def test_the_mtu_is_what_fits_behind_the_outer_headers() -> None:
    v4 = plan_node(view(OVERLAY))
    v6_vtep = peer("n1", 11)
    v6_only = type(v6_vtep)("n1", ip_address("fd31::11"), v6_vtep.mac, (ip_address("fd31::11"),))
    v6 = plan_node(view(OVERLAY, vtep=v6_only))
    assert v4.segments["o4"].mtu == 1450
    assert v6.segments["o4"].mtu == 1430
    assert [o.mtu for o in v6.objects if isinstance(o, VxlanLink)] == [1430]


@pytest.mark.spec("T72", "T74")
def test_a_peer_has_one_unicast_entry_and_one_for_replication() -> None:
    node = view(OVERLAY)
    entries = [o for o in plan_peer(peer("n2", 12), node, "hybrvx4").objects if isinstance(o, FdbEntry)]
    assert {(e.mac, str(e.destination)) for e in entries} == {
        ("02:00:00:00:00:0c", "172.31.0.12"),
        ("ff:ff:ff:ff:ff:ff", "172.31.0.12"),
    }
    assert plan_peer(peer("n1", 11), node, "hybrvx4").objects == ()


@pytest.mark.spec("T22", "T44")
def test_a_node_without_ipv6_gets_no_object_of_that_family() -> None:
    node = view(OVERLAY, subnet("o6", "fd64::/112", overlay=True), families=frozenset({Family.V4}))
    plan = plan_node(node)
    assert "o6" not in plan.segments
    families = [o.family for o in plan.objects if isinstance(o, Route | Rule)]
    families += [Family(o.address.version) for o in plan.objects if isinstance(o, LinkAddress)]
    assert set(families) == {Family.V4}
    assert not [o for o in plan.objects if "ipv6" in getattr(o, "path", "")]


@pytest.mark.spec("T58", "T69")
def test_one_bad_subnet_is_a_problem_of_its_own() -> None:
    plan = plan_node(view(OVERLAY, UNDERLAY, subnet("tagged", "10.9.0.0/24", net_id=9)))
    assert set(plan.segments) == {"o4", "u4"}
    assert [(p.name, p.reason) for p in plan.problems] == [("tagged", "NotSupported")]


@pytest.mark.spec("T56")
def test_subnets_that_share_a_cidr_are_excluded_together() -> None:
    low = subnet("a", "10.0.0.0/24", first="10.0.0.1", last="10.0.0.127")
    high = subnet("b", "10.0.0.0/24", first="10.0.0.192", last="10.0.0.254")
    assert excluded_blocks([low, high]) == {ip_network("10.0.0.0/24"): (ip_network("10.0.0.128/26"),)}


@given(st.integers(0, 255), st.integers(0, 255), st.sets(st.integers(0, 255), max_size=6))
def test_the_cover_is_exactly_what_is_not_a_pod(a: int, b: int, extra: set[int]) -> None:
    first, last = sorted((a, b))
    item = subnet(
        "s",
        "10.0.0.0/24",
        first=f"10.0.0.{first}",
        last=f"10.0.0.{last}",
        excluded=[f"10.0.0.{n}" for n in extra],
    )
    blocks = excluded_blocks([item])[ip_network("10.0.0.0/24")]
    covered = {int(h) & 255 for block in blocks for h in block}
    low = 0 if first == 1 else first
    high = 255 if last >= 254 else last
    assert covered == {n for n in range(256) if n < low or n > high} | extra


def test_tunnel_routes_carry_the_nodes_own_address_as_source() -> None:
    table = {str(r.destination): r for r in plan_tunnel_routes(view(OVERLAY), "hybrvx4")}
    assert table["100.64.0.0/16"].source == ip_address("172.31.0.11")
