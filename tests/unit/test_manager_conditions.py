"""Status of Networks and Subnets as values."""

from typing import Any

import pytest

from hybridnet.ipam.network import NetworkPool
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.range import parse_range
from hybridnet.ipam.validity import Problem
from hybridnet.manager.conditions import INT64_MAX, network_status, status_patch, subnet_status
from hybridnet.manager.pod_state import finished, wants_address
from hybridnet.model.address import Family
from hybridnet.model.core import Container, ContainerStatus, Pod, PodSpec, PodStatus
from hybridnet.model.instance import Address, IPInstance, IPInstanceSpec, IPInstanceStatus
from hybridnet.model.meta import Condition, ObjectMeta
from hybridnet.model.network import AddressRange, Network, NetworkSpec, Statistics, Subnet, SubnetSpec


def subnet(cidr: str, status: Any = None) -> Subnet:
    version = "6" if ":" in cidr else "4"
    return Subnet(
        metadata=ObjectMeta(name="s", generation=3),
        spec=SubnetSpec(network="n", range=AddressRange(version=version, cidr=cidr)),
        status=status,
    )


def pool_of(one: Subnet, name: str = "s") -> SubnetPool:
    return SubnetPool(name, "n", parse_range(one.spec.range))


def ready(conditions: tuple[Condition, ...]) -> tuple[str, str]:
    condition = next(c for c in conditions if c.type == "Ready")
    return condition.status, condition.reason


def test_a_subnet_tells_its_numbers_and_its_cursor() -> None:
    one = subnet("10.0.0.0/24")
    pool = pool_of(one)
    pool.pick()
    pool.pick()
    status = subnet_status(one, pool, None)
    assert (status.total, status.used, status.available) == (254, 2, 252)
    assert status.last_allocated_ip == "10.0.0.2"
    assert ready(status.conditions) == ("True", "Usable")
    assert status.conditions[0].observed_generation == 3
    assert subnet_status(subnet("10.0.0.0/24", status), pool, None) == status, "nothing to write again"


def test_a_full_subnet_says_so_and_a_bad_one_why() -> None:
    one = subnet("10.0.0.0/30")
    pool = pool_of(one)
    pool.pick()
    pool.pick()
    assert ready(subnet_status(one, pool, None).conditions) == ("True", "Full")
    bad = subnet_status(one, None, Problem("InvalidRange", "spec.range.cidr: garbage"))
    assert ready(bad.conditions) == ("False", "InvalidRange")
    assert "garbage" in bad.conditions[0].message


def test_a_cursor_that_another_manager_wrote_is_left_alone() -> None:
    one = subnet("10.0.0.0/24")
    pool = pool_of(one)
    pool.pick()
    pool.unsaved = False
    theirs = subnet("10.0.0.0/24", subnet_status(one, pool, None))
    assert theirs.status is not None
    assert subnet_status(theirs, pool, None).last_allocated_ip == theirs.status.last_allocated_ip


def test_the_time_of_a_condition_moves_only_with_its_status() -> None:
    old = Condition(type="Ready", status="True", reason="Usable", last_transition_time="2020-01-01T00:00:00Z")
    other = Condition(type="Other", status="True")
    pool = pool_of(subnet("10.0.0.0/30"))
    before = subnet_status(subnet("10.0.0.0/30"), pool, None)
    known = subnet("10.0.0.0/30", type(before)(conditions=(other, old)))
    same = subnet_status(known, pool, None).conditions
    assert same[0] == other
    assert same[1].last_transition_time == "2020-01-01T00:00:00Z"
    changed = subnet_status(known, None, Problem("X", "y")).conditions[1]
    assert changed.last_transition_time != "2020-01-01T00:00:00Z"


@pytest.mark.spec("D2", "D4")
def test_a_network_sums_its_subnets_and_pairs_families() -> None:
    network = Network(metadata=ObjectMeta(name="n"), spec=NetworkSpec(type="Overlay"))
    pool = NetworkPool("n")
    for name, cidr in (("a", "10.0.0.0/24"), ("b", "10.0.1.0/24"), ("c", "fe80::/120")):
        pool.put(pool_of(subnet(cidr), name))
    status = network_status(network, pool, None, ["c", "a", "b"], ["n2", "n1"])
    assert status.statistics == Statistics(total=508, available=508)
    assert status.ipv6_statistics == Statistics(total=255, available=255)
    assert status.dual_stack_statistics == Statistics(available=255)
    assert status.subnet_list == ("a", "b", "c")
    assert status.node_list == ("n1", "n2")
    assert (status.last_allocated_subnet, status.last_allocated_ipv6_subnet) == ("a", "c")
    assert ready(status.conditions) == ("True", "Usable")


def test_the_current_subnet_is_written_by_who_moved_it() -> None:
    network = Network(metadata=ObjectMeta(name="n"), spec=NetworkSpec(type="Overlay"))
    pool = NetworkPool("n")
    for name, cidr in (("a", "10.0.0.0/30"), ("b", "10.0.1.0/24")):
        pool.put(pool_of(subnet(cidr), name))
    for _ in range(3):
        pool.pick(Family.V4)
    first = network_status(network, pool, None, ["a", "b"], [])
    assert first.last_allocated_subnet == "b"
    pool.unsaved.clear()
    theirs = Network(
        metadata=network.metadata, spec=network.spec, status=type(first)(last_allocated_subnet="a")
    )
    assert network_status(theirs, pool, None, ["a", "b"], []).last_allocated_subnet == "a"
    gone = Network(
        metadata=network.metadata, spec=network.spec, status=type(first)(last_allocated_subnet="x")
    )
    assert network_status(gone, pool, None, ["a", "b"], []).last_allocated_subnet == "b"


def test_what_a_network_lacks_is_its_condition() -> None:
    network = Network(
        metadata=ObjectMeta(name="n"), spec=NetworkSpec(type="Underlay", node_selector={"rack": "1"})
    )
    pool = NetworkPool("n")
    assert ready(network_status(network, None, None, [], []).conditions) == ("False", "Pending")
    assert ready(network_status(network, pool, None, [], ["x"]).conditions) == ("False", "NoSubnet")
    assert ready(network_status(network, pool, None, ["bad"], ["x"]).conditions) == (
        "False",
        "NoUsableSubnet",
    )
    pool.put(pool_of(subnet("10.0.0.0/24")))
    nobody = network_status(network, pool, None, ["s"], [])
    assert ready(nobody.conditions) == ("False", "NoNode")
    assert "rack=1" in nobody.conditions[0].message


def test_counts_beyond_int64_are_capped_and_zeros_are_written() -> None:
    one = subnet("fd00::/64")
    status = subnet_status(one, pool_of(one), None)
    assert status.total == INT64_MAX
    patch = status_patch("9", status)
    assert patch["metadata"] == {"resourceVersion": "9"}
    written = patch["status"]
    assert isinstance(written, dict)
    assert (written["used"], written["lastAllocatedIP"]) == (0, "")
    assert written["conditions"][0]["lastTransitionTime"]


def pod(phase: str = "Running", statuses: tuple[str, ...] = ("c",), **spec: Any) -> Pod:
    deleted = spec.pop("deleted", None)
    return Pod(
        metadata=ObjectMeta(name="p", deletion_timestamp=deleted),
        spec=PodSpec(containers=(Container(name="c"),), **{"node_name": "n", **spec}),
        status=PodStatus(phase=phase, container_statuses=tuple(ContainerStatus(name=s) for s in statuses)),
    )


@pytest.mark.spec("G2", "G3", "G4", "G5")
def test_a_pod_is_finished_when_it_will_never_run_again() -> None:
    assert finished(pod("Succeeded"))
    assert not finished(pod("Succeeded", ()))
    assert finished(pod("Failed", ()))
    assert not finished(pod("Running"))
    assert not finished(pod("Pending", ()))


@pytest.mark.spec("A26", "A27")
def test_who_wants_an_address() -> None:
    assert wants_address(pod("Pending"))
    assert not wants_address(pod("Pending", host_network=True))
    assert not wants_address(pod("Pending", node_name=""))
    assert not wants_address(pod("Running", deleted="2026-01-01T00:00:00Z"))
    assert not wants_address(pod("Failed"))


def test_of_two_records_the_used_then_the_older_then_the_first_by_name_is_senior() -> None:
    def record(name: str, created: str, sandbox: str = "") -> IPInstance:
        return IPInstance(
            metadata=ObjectMeta(name=name, creation_timestamp=created),
            spec=IPInstanceSpec(network="n", subnet="s", address=Address(version="4", ip="", mac="")),
            status=IPInstanceStatus(sandbox_id=sandbox) if sandbox else None,
        )

    records = [record("c", "1"), record("b", "1"), record("a", "2"), record("d", "3", "box")]
    assert [r.name for r in sorted(records, key=lambda r: r.seniority)] == ["d", "b", "c", "a"]
