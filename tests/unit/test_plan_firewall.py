"""The nftables tables as a function of the view. That the kernel takes them is tested with the kernel."""

from ipaddress import ip_network

import pytest

from hybridnet.model.address import Family
from hybridnet.plan import layout
from hybridnet.plan.firewall import plan_tables, pod_map
from hybridnet.plan.segment import plan_segments
from hybridnet.plan.state import NftTable
from hybridnet.plan.view import NodeView
from tests.unit.plan_views import subnet, view

OVERLAY = subnet("o4", "100.64.0.0/16", overlay=True)
UNDERLAY = subnet("u4", "172.31.1.0/24", gateway="172.31.1.1")


def tables(node: NodeView, tunnel: str = "hybrvx4") -> dict[str, NftTable]:
    segments, _ = plan_segments(node)
    return {table.family: table for table in plan_tables(node, segments.values(), tunnel)}


def chain(table: NftTable, name: str) -> str:
    return table.chains.split(f"chain {name} {{")[1].split("}")[0]


@pytest.mark.spec("T51", "T101")
def test_the_chains_do_not_grow_with_subnets() -> None:
    few = tables(view(OVERLAY))
    many = tables(view(*(subnet(f"o{n}", f"100.{n}.0.0/16", overlay=True) for n in range(64, 128))))
    assert many["inet"].chains == few["inet"].chains


def test_pods_and_nodes_are_elements_that_come_one_by_one_and_segments_are_not() -> None:
    sets = {s.name: s.elements for s in tables(view(OVERLAY, UNDERLAY))["inet"].sets}
    assert sets == {
        "pod4": None,
        "node4": None,
        "segment4": (("172.31.1.0/24", ""),),
        "pod6": None,
        "node6": None,
        "segment6": (),
    }


@pytest.mark.spec("T44")
def test_a_node_without_ipv6_has_nothing_of_it() -> None:
    table = tables(view(OVERLAY, UNDERLAY, families=frozenset({Family.V4})))["inet"]
    assert "ip6" not in table.chains
    assert all(not s.name.endswith("6") for s in table.sets)


def test_without_a_tunnel_no_rule_names_one() -> None:
    made = tables(view(UNDERLAY, vni=None, vtep=None), "")
    assert set(made) == {"inet"}
    assert "hybrvx" not in made["inet"].chains
    assert '""' not in made["inet"].chains


@pytest.mark.spec("T37", "T41")
def test_only_overlay_pods_that_may_leave_are_masqueraded_and_never_towards_pods() -> None:
    lines = [line.strip() for line in chain(tables(view(OVERLAY))["inet"], "nat").strip().splitlines()]
    assert lines[0].startswith("type nat hook postrouting")
    assert lines[1].endswith(f"!= 0x{layout.class_mark(layout.CLASS_OVERLAY_NAT):x} return")
    assert lines[2:] == [f"oifgroup {layout.POD_GROUP} return", 'oifname "hybrvx4" return', "masquerade"]


def test_our_mark_bits_are_cleared_and_the_others_kept() -> None:
    text = chain(tables(view(OVERLAY))["inet"], "clear")
    ours, keep = (int(word, 16) for word in text.split() if word.startswith("0x") and word != "0x0")
    assert ours == layout.MARK_ALL
    assert ours ^ keep == 0xFFFF_FFFF
    assert ours & 0xC000 == 0  # of kube-proxy


def test_the_guard_drops_only_what_goes_back_where_it_came_from() -> None:
    lines = chain(tables(view(OVERLAY, UNDERLAY))["inet"], "guard").strip().splitlines()
    drops = [line.split() for line in lines if "drop" in line]
    assert len(drops) == 3
    assert all(words[1] == words[3] for words in drops)
    assert lines[1].strip() == f"iifgroup {layout.POD_GROUP} accept"


@pytest.mark.parametrize("family", Family)
def test_the_class_of_a_packet_is_one_lookup_by_its_source(family: Family) -> None:
    text = chain(tables(view(OVERLAY))["inet"], "classify")
    word = "ip" if family is Family.V4 else "ip6"
    assert f"meta mark set {word} saddr map @{pod_map(family)}" in text


def test_the_tunnel_sends_broadcast_to_the_replication_entry_only() -> None:
    text = tables(view(OVERLAY))["netdev"].chains
    assert 'hook egress device "hybrvx4"' in text
    assert f"ether daddr set {layout.BROADCAST_MAC}" in text


def test_several_subnets_of_one_cidr_are_one_element() -> None:
    pair = [subnet(f"u{n}", "172.31.1.0/24", gateway="172.31.1.1") for n in range(2)]
    sets = {s.name: s.elements for s in tables(view(*pair))["inet"].sets}
    assert sets["segment4"] == ((str(ip_network("172.31.1.0/24")), ""),)
