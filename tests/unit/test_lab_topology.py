"""Names, addresses, cables and node scripts of the lab, as values."""

from ipaddress import IPv4Network, ip_address
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.lab import fabric, node, plugin
from hybridnet.lab.errors import InvalidName
from hybridnet.lab.processes import Place
from hybridnet.lab.topology import SLOTS, Topology, check_name, free_slot

LAB = Topology("lab", 3, 0)


def test_hosts_have_the_same_host_digits_in_both_families() -> None:
    assert [str(a) for a in LAB.node("node1").addresses] == ["172.31.0.11/24", "fd31::11/64"]
    assert [str(a) for a in LAB.control_plane.addresses] == ["172.31.0.2/24", "fd31::2/64"]
    assert [str(a) for a in LAB.external.addresses] == ["172.31.2.2/24", "fd31:2::2/64"]
    assert LAB.node("node3").gateways == (ip_address("172.31.0.1"), ip_address("fd31::1"))


@given(nodes=st.integers(min_value=1, max_value=200))
def test_no_two_hosts_share_an_address(nodes: int) -> None:
    topology = Topology("lab", nodes, 0)
    addresses = [address.ip for host in topology.hosts for address in host.addresses]
    assert len(addresses) == len(set(addresses)) == 2 * (nodes + 2)


@pytest.mark.parametrize("name", ["", "Lab", "a-b", "1lab", "a" * 11, "../etc", "a b"])
def test_a_name_that_cannot_be_a_device_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="lower-case"):
        check_name(name)


@given(
    st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)
)
def test_names_of_one_lab_never_begin_like_those_of_another(one: str, other: str) -> None:
    if one == other:
        return
    mine, theirs = Topology(one, 2, 0), Topology(other, 2, 1)
    assert not any(theirs.namespace(role).startswith(f"{mine.prefix}-") for role in theirs.roles)


def test_every_device_name_fits_into_fifteen_bytes() -> None:
    topology = Topology("a" * 10, 200, 0)
    words = " ".join([*fabric.cabling(topology), *topology.roles]).split()
    devices = [after for before, after in pairwise(words) if before == "name"]
    assert devices
    assert max(map(len, [*devices, topology.prefix])) <= 15


def test_links_to_the_root_namespace_differ_between_labs() -> None:
    networks = [Topology("lab", 1, slot).management[0].network for slot in range(SLOTS)]
    assert not any(a.overlaps(b) for a, b in combinations(networks[:20], 2))
    assert all(network.subnet_of(IPv4Network("198.18.0.0/16")) for network in networks)


def test_a_slot_is_free_when_no_lab_has_it_and_the_machine_does_not_use_its_addresses() -> None:
    assert free_slot(set(), []) == 0
    assert free_slot({0, 1}, []) == 2
    assert free_slot({1}, [IPv4Network("198.18.0.0/30")]) == 2
    with pytest.raises(InvalidName, match="lab down"):
        free_slot(set(), [IPv4Network("198.18.0.0/15")])


def test_everything_but_the_external_host_is_plugged_into_the_switch() -> None:
    switch = dict(fabric.settings(LAB))["switch"]
    plugged = {line.split()[2] for line in switch if "master br0" in line}
    assert plugged == {"router", "cp", "node1", "node2", "node3"}
    assert any(
        "eth1 netns hn-lab-router" in line and "hn-lab-external" in line for line in fabric.cabling(LAB)
    )


def test_the_router_is_the_gateway_of_nodes_and_of_underlay_pods_in_both_families() -> None:
    router = " ".join(dict(fabric.settings(LAB))["router"])
    for address in ("172.31.0.1/24", "fd31::1/64", "172.31.1.1/24", "fd31:1::1/64"):
        assert f"address add {address} dev eth0" in router
    assert "default" not in router


def test_with_the_bridge_plugin_each_node_knows_the_pods_of_all_others() -> None:
    assert plugin.bridge_routes(LAB, "node2") == [
        "route add 10.244.1.0/24 via 172.31.0.11",
        "route add fd44:1::/64 via fd31::11",
        "route add 10.244.3.0/24 via 172.31.0.13",
        "route add fd44:3::/64 via fd31::13",
    ]


def test_a_checkout_below_a_path_that_nodes_replace_stays_visible() -> None:
    folder = Path("/var/lib/hybridnet-lab/lab")
    text = node.script("node1", folder, [Path("/var/lib/ci/checkout"), Path("/run/user/x"), Path("/home/me")])
    assert "mkdir -p lib/ci/checkout; mount --bind /var/lib/ci/checkout lib/ci/checkout" in text
    assert "mount --bind /run/user/x run/user/x" in text
    assert "mount --bind /var/lib/hybridnet-lab/lab lib/hybridnet-lab/lab" in text
    assert "/home/me" not in text


def test_a_process_joins_its_cgroup_before_it_enters_namespaces() -> None:
    place = Place(holder=7, cgroup=Path("/sys/fs/cgroup/hn-lab/node1.system"))
    wrapped = place.wrap(["kubelet"])
    assert wrapped[0] == "/bin/sh"
    assert wrapped.index("/sys/fs/cgroup/hn-lab/node1.system/cgroup.procs") < wrapped.index("nsenter")
    assert wrapped[-5:] == ["--net", "--mount", "--uts", "--", "kubelet"]
