"""Which objects can be used: one bad object is named and stops nothing else."""

from typing import Any

import pytest

from hybridnet.ipam.validity import effective_net_id, judge
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import (
    AddressRange,
    Network,
    NetworkSpec,
    Subnet,
    SubnetSpec,
)


def network(name: str = "overlay", kind: str = "Overlay", age: int = 0, **spec: Any) -> Network:
    return Network(
        metadata=ObjectMeta(name=name, creation_timestamp=f"2026-01-01T00:00:{age:02}Z"),
        spec=NetworkSpec(type=kind, **spec),
    )


def subnet(
    name: str, cidr: str, of: str = "overlay", age: int = 0, net_id: int | None = None, **fields: Any
) -> Subnet:
    version = fields.pop("version", "6" if ":" in cidr else "4")
    return Subnet(
        metadata=ObjectMeta(name=name, creation_timestamp=f"2026-01-01T00:00:{age:02}Z"),
        spec=SubnetSpec(network=of, range=AddressRange(version=version, cidr=cidr, **fields), net_id=net_id),
    )


def reasons(networks: list[Network], subnets: list[Subnet]) -> dict[str, str]:
    judgement = judge(networks, subnets)
    problems = {**judgement.network_problems, **judgement.subnet_problems}
    assert all(problem.message for problem in problems.values())
    return {name: problem.reason for name, problem in problems.items()}


@pytest.mark.spec("F6")
def test_a_broken_subnet_leaves_the_others_alone() -> None:
    judgement = judge(
        [network()],
        [subnet("bad", "10.0.0.1/24"), subnet("good", "10.1.0.0/24"), subnet("lost", "10.2.0.0/24", of="x")],
    )
    assert set(judgement.ranges) == {"good"}
    assert judgement.subnet_problems["bad"].reason == "InvalidRange"
    assert "spec.range.cidr" in judgement.subnet_problems["bad"].message
    assert judgement.subnet_problems["lost"].reason == "UnknownNetwork"


@pytest.mark.spec("R26", "B5", "B6", "B7")
@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (subnet("b", "10.0.0.0/25", age=1), "Overlap"),
        (subnet("b", "10.0.0.0/8", age=1), "Overlap"),
        (subnet("b", "10.0.0.0/24", age=1), "Overlap"),
        (subnet("b", "10.0.0.0/24", start="10.0.0.150", age=1), None),
        (subnet("b", "10.0.0.0/24", of="other", start="10.0.0.150", age=1), "Overlap"),
        (subnet("b", "10.0.1.0/24", age=1), None),
    ],
)
def test_the_younger_of_two_overlapping_subnets_is_refused(second: Subnet, reason: str | None) -> None:
    first = subnet("a", "10.0.0.0/24", end="10.0.0.100")
    networks = [network(), network("other", "Underlay", node_selector={"a": "b"}, mode="BGP", net_id=1)]
    expected = {"b": reason} if reason else {}
    assert reasons(networks, [second, first]) == expected


@pytest.mark.spec("B5")
def test_a_thousand_nested_candidates_are_all_found_without_enumerating_addresses() -> None:
    wide = [subnet("wide4", "10.0.0.0/8"), subnet("wide6", "fd00::/64")]
    nested = [subnet(f"n{n}", f"10.{n // 250}.{n % 250}.0/24", age=1) for n in range(1000)]
    assert len(reasons([network()], [*wide, *nested, subnet("six", "fd00::/80", age=1)])) == 1001


@pytest.mark.spec("B1", "B3")
@pytest.mark.parametrize(
    ("kind", "network_id", "own", "gateway", "reason"),
    [
        ("VLAN", None, None, "10.0.0.1", "NoNetID"),
        ("VLAN", None, 57, "10.0.0.1", None),
        ("VLAN", 0, None, "10.0.0.1", None),
        ("VLAN", 100, 57, "10.0.0.1", "NetIDMismatch"),
        ("VLAN", 100, 100, "", "NoGateway"),
        ("Bridge", None, None, "", None),
        ("BGP", 64512, 5, "", "NetIDNotAllowed"),
        ("VXLAN", 4, 4, "", "NetIDNotAllowed"),
        ("VXLAN", 4, None, "", None),
    ],
)
def test_net_ids_of_subnet_and_network_fit(
    kind: str, network_id: int | None, own: int | None, gateway: str, reason: str | None
) -> None:
    net = network("n", "Overlay" if kind == "VXLAN" else "Underlay", mode=kind, net_id=network_id)
    assert reasons([net], [subnet("s", "10.0.0.0/24", of="n", net_id=own, gateway=gateway)]) == (
        {"s": reason} if reason else {}
    )


@pytest.mark.spec("A36", "A37")
def test_the_net_id_of_a_subnet_is_its_own_or_its_networks() -> None:
    vlan = network("n", "Underlay", net_id=100)
    assert effective_net_id(subnet("s", "10.0.0.0/24", of="n"), vlan) == 100
    assert effective_net_id(subnet("s", "10.0.0.0/24", of="n", net_id=57), network("n", "Underlay")) == 57
    assert effective_net_id(subnet("s", "10.0.0.0/24", of="n", net_id=0), vlan) == 0


@pytest.mark.spec("N3", "N7", "W8")
def test_a_second_overlay_and_unknown_words_are_refused() -> None:
    networks = [
        network("young", age=5),
        network("old"),
        network("odd", "Magic"),
        network("mixed", "Underlay", mode="VXLAN"),
    ]
    assert reasons(networks, [subnet("s", "10.0.0.0/24", of="young")]) == {
        "young": "AnotherOverlayExists",
        "odd": "UnknownType",
        "mixed": "ModeMismatch",
        "s": "NetworkNotReady",
    }
