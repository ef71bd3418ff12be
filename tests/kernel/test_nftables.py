"""Our tables as ``nft`` shows them: atomic, element by element, adopted, audited."""

import json
from collections.abc import Iterator
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

import pytest
from msgspec.structs import replace

from hybridnet.kernel.errors import NftError
from hybridnet.kernel.libnftables import Nft
from hybridnet.kernel.nftables import NftApplier
from hybridnet.plan.state import NftSet, NftTable
from tests.kernel.netns import Net

CHAINS = """
chain from_pod {
  type filter hook prerouting priority mangle; policy accept;
  meta mark set ip saddr map @pod4
  ip saddr @node4 counter accept
}
"""
POD4 = NftSet("pod4", "type ipv4_addr : mark;")
NODE4 = NftSet("node4", "type ipv4_addr;")
POD6 = NftSet("pod6", "type ipv6_addr : mark;")
FIXED = NftSet("segment4", "type ipv4_addr; flags interval;", (("10.0.0.0/16", ""), ("10.2.0.0/16", "")))
TABLE = NftTable("inet", "hyb", CHAINS, (POD4, NODE4, POD6, FIXED))


@pytest.fixture
def applier(net: Net) -> Iterator[NftApplier]:
    opened = NftApplier(net.namespace)
    yield opened
    opened.close()


def listing(net: Net) -> str:
    return net.shell("nft", "list", "ruleset")


def elements(net: Net, name: str, table: str = "inet hyb") -> dict[str, Any]:
    """Elements of a set or map, and a map's data, as ``nft -j`` tells them."""
    kind = "map" if name.startswith("pod") else "set"
    text = net.shell("nft", "-j", "list", kind, *table.split(), name)
    found = next(e[kind] for e in json.loads(text)["nftables"] if kind in e).get("elem", [])
    return dict(e if isinstance(e, list) else (str(e), None) for e in found)


def test_a_table_is_made_and_a_second_time_nothing_is_written(net: Net, applier: NftApplier) -> None:
    assert applier.ensure([TABLE])
    shown = listing(net)
    assert "meta mark set ip saddr map @pod4" in shown
    assert "10.0.0.0/16, 10.2.0.0/16" in shown
    assert not applier.ensure([TABLE])
    assert applier.ensure([TABLE], again=True)
    assert listing(net) == shown


def test_elements_follow_their_scopes(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000"), ("node4", "10.9.0.1", "")])
    applier.set_elements("b", [("pod4", "10.0.0.2", "0x00020000"), ("pod6", "fd00::2", "0x00020000")])
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000, "10.0.0.2": 0x20000}
    assert elements(net, "pod6") == {"fd00::2": 0x20000}
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00030000")])
    assert elements(net, "pod4") == {"10.0.0.1": 0x30000, "10.0.0.2": 0x20000}
    assert elements(net, "node4") == {}
    applier.set_elements("a", [])
    assert elements(net, "pod4") == {"10.0.0.2": 0x20000}


def test_the_later_scope_has_a_key_and_the_earlier_cannot_take_it_away(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements("old", [("pod4", "10.0.0.1", "0x00010000")])
    applier.set_elements("new", [("pod4", "10.0.0.1", "0x00020000")])
    applier.set_elements("old", [])
    assert elements(net, "pod4") == {"10.0.0.1": 0x20000}


def test_elements_wanted_before_the_table_exists_are_written_with_it(net: Net, applier: NftApplier) -> None:
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    applier.ensure([TABLE])
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000}


def test_new_chains_keep_the_elements_and_drop_old_chains_and_sets(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    slim = replace(TABLE, chains="chain other { ip saddr 10.0.0.9 drop; }", sets=(POD4,))
    applier.ensure([slim])
    shown = listing(net)
    assert "10.0.0.9 drop" in shown
    assert "from_pod" not in shown
    assert "segment4" not in shown
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000}


def test_a_chain_with_another_hook_keeps_the_elements(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    applier.ensure(
        [replace(TABLE, chains=CHAINS.replace("prerouting priority mangle", "forward priority 7"))]
    )
    assert "hook forward priority 7" in listing(net).replace("filter + 7", "7")
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000}


def test_a_set_of_another_type_replaces_the_old_one(net: Net, applier: NftApplier) -> None:
    net.shell("nft", "add table inet hyb; add set inet hyb node4 { type ifname; }")
    net.shell("nft", 'add element inet hyb node4 { "eth0" }')
    applier.ensure([TABLE])
    applier.set_elements("a", [("node4", "10.0.0.1", "")])
    assert elements(net, "node4") == {"10.0.0.1": None}


def test_a_bad_table_changes_nothing_and_says_where(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    before = listing(net)
    bad = replace(TABLE, chains="chain from_pod {\n ip saddr nonsense( drop\n}")
    with pytest.raises(NftError, match=r"write nftables table inet hyb.*syntax error"):
        applier.ensure([bad])
    assert listing(net) == before
    with pytest.raises(NftError):
        applier.ensure([bad])
    assert applier.ensure([TABLE]) is False


def test_one_table_s_failure_does_not_hinder_another(net: Net, applier: NftApplier) -> None:
    broken = NftTable("netdev", "hyb", egress("lo").replace("ether daddr set", "nonsense"))
    with pytest.raises(NftError, match="netdev hyb"):
        applier.ensure([broken, TABLE])
    assert "from_pod" in listing(net)
    assert applier.ensure([NftTable("netdev", "hyb", egress("lo")), TABLE])
    assert 'device "lo"' in listing(net)


def egress(device: str) -> str:
    return (
        f'chain out {{ type filter hook egress device "{device}" priority 0;\n'
        "ether daddr and 01:00:00:00:00:00 == 01:00:00:00:00:00 ether daddr set ff:ff:ff:ff:ff:ff; }"
    )


def test_an_egress_chain_comes_back_with_its_device(net: Net, applier: NftApplier) -> None:
    net.add_device("tun")
    tunnel = NftTable("netdev", "hyb", egress("tun"))
    applier.ensure([tunnel])
    net.ip("link del tun")
    net.add_device("tun")
    applier.ensure([tunnel], again=True)
    assert 'egress device "tun"' in listing(net)
    assert not applier.audit()


def test_an_audit_hooks_into_a_device_that_was_made_anew(net: Net, applier: NftApplier) -> None:
    """A kernel before 6.16 drops the chain with its device, a later one hooks it in again by itself."""
    net.add_device("tun")
    chain = 'chain out { type filter hook egress device "tun" priority 0;\n counter; }'
    applier.ensure([NftTable("netdev", "hyb", chain)])
    net.ip("link del tun")
    net.add_device("tun", "10.0.0.1/24")
    applier.audit()
    net.namespace.run(lambda: socket(AF_INET, SOCK_DGRAM)).sendto(b"counted", ("10.0.0.2", 9))
    assert "hook egress" in listing(net)
    assert "counter packets 0 " not in listing(net)


def test_a_table_that_is_wanted_no_more_goes_and_foreign_ones_stay(net: Net, applier: NftApplier) -> None:
    net.shell("nft", "add table inet foreign; add table ip hyb")
    net.add_device("tun")
    applier.ensure([TABLE, NftTable("netdev", "hyb", egress("tun"))])
    assert "table ip hyb" not in listing(net)
    applier.ensure([TABLE])
    shown = listing(net)
    assert "table netdev" not in shown
    assert "table inet foreign" in shown


def test_a_new_process_keeps_the_elements_until_it_prunes(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements(
        "a",
        [("pod4", "10.0.0.1", "0x00010000"), ("pod6", "fd00::1", "0x00010000"), ("node4", "10.9.0.1", "")],
    )
    successor = NftApplier(net.namespace)
    successor.ensure([TABLE])
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000}
    successor.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    assert elements(net, "pod6") == {"fd00::1": 0x10000}
    successor.prune()
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000}
    assert elements(net, "pod6") == {}
    assert elements(net, "node4") == {}
    successor.close()


def test_an_audit_before_pruning_removes_nothing(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    successor = NftApplier(net.namespace)
    successor.ensure([TABLE])
    assert not successor.audit()
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000}
    successor.close()


@pytest.mark.parametrize(
    ("command", "repaired"),
    [
        ("delete table inet hyb", {"table inet hyb", "element 10.0.0.1 of pod4"}),
        ("flush ruleset", {"table inet hyb", "element 10.0.0.1 of pod4"}),
        ("flush chain inet hyb from_pod", {"table inet hyb"}),
        ("add rule inet hyb from_pod ip saddr 10.0.0.1 drop", {"table inet hyb"}),
        ("add chain inet hyb stranger", {"table inet hyb"}),
        ("delete element inet hyb segment4 { 10.0.0.0/16 }", {"table inet hyb"}),
        ("delete element inet hyb pod4 { 10.0.0.1 }", {"element 10.0.0.1 of pod4"}),
        ("add element inet hyb node4 { 10.0.0.7 }", {"element 10.0.0.7 of node4"}),
    ],
)
def test_an_audit_repairs_what_somebody_else_did(
    net: Net, applier: NftApplier, command: str, repaired: set[str]
) -> None:
    applier.ensure([TABLE])
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    applier.prune()
    assert not applier.audit()
    before = listing(net)
    net.shell("nft", command)
    assert listing(net) != before
    assert set(applier.audit()) == repaired
    assert listing(net) == before
    assert not applier.audit()


def test_counting_packets_is_no_drift(net: Net, applier: NftApplier) -> None:
    chains = CHAINS.replace("ip saddr @node4 counter accept", "counter accept")
    applier.ensure([replace(TABLE, chains=chains)])
    net.namespace.run(lambda: socket(AF_INET, SOCK_DGRAM)).sendto(b"counted", ("127.0.0.1", 9))
    assert "counter packets 0 " not in listing(net)
    assert not applier.audit()


def test_a_change_that_trips_over_a_flush_repairs_it(net: Net, applier: NftApplier) -> None:
    applier.ensure([TABLE])
    applier.set_elements("a", [("pod4", "10.0.0.1", "0x00010000")])
    net.shell("nft", "flush ruleset")
    applier.set_elements("b", [("pod4", "10.0.0.2", "0x00020000")])
    assert elements(net, "pod4") == {"10.0.0.1": 0x10000, "10.0.0.2": 0x20000}
    net.shell("nft", "delete element inet hyb pod4 { 10.0.0.1 }")
    applier.set_elements("a", [])
    assert elements(net, "pod4") == {"10.0.0.2": 0x20000}


def test_verdict_maps_and_concatenations_are_adopted(net: Net, applier: NftApplier) -> None:
    table = NftTable(
        "inet",
        "hyb",
        "chain one { }\nchain top { type filter hook forward priority 0; ip saddr vmap @podv; }",
        (
            NftSet("podv", "type ipv4_addr : verdict;"),
            NftSet("pair", "type ipv4_addr . inet_service;"),
        ),
    )
    wanted = [
        ("podv", "10.0.0.1", "jump one"),
        ("podv", "10.0.0.2", "accept"),
        ("pair", "10.0.0.1 . 80", ""),
    ]
    applier.ensure([table])
    applier.set_elements("a", wanted)
    successor = NftApplier(net.namespace)
    successor.set_elements("a", wanted)
    successor.ensure([table])
    successor.prune()
    assert not successor.audit()
    assert "jump one" in listing(net)
    successor.close()


def test_a_context_stays_in_the_namespace_that_it_was_made_in(net: Net) -> None:
    with Nft(net.namespace) as nft:
        nft.run("add table inet only_here")
    assert "only_here" in listing(net)
    with Nft() as outside:
        assert "only_here" not in outside.run("list tables")
