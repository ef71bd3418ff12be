"""Pods get addresses: which ones, how they are recorded, and what is said when there are none."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridnet.ipam.selection import IPFamily
from hybridnet.model import labels
from hybridnet.model.instance import IPInstance
from hybridnet.model.network import NetworkType
from hybridnet.model.resource import IPINSTANCES, NETWORKS, PODS, SUBNETS
from tests.api.manager_world import World, play

Play = Callable[[Any], None]


async def overlay(world: World, cidr: str = "100.10.0.0/24", **fields: Any) -> None:
    """One node, one overlay network, one subnet."""
    await world.node()
    await world.network("overlay")
    await world.subnet("over4", "overlay", cidr, **fields)


def of(instance: IPInstance) -> str:
    return instance.spec.address.ip


@pytest.mark.spec("A1", "A37")
def test_a_plain_pod_gets_one_address_recorded_as_the_original_did(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node(rack="1")
        await world.network("underlay", "Underlay", netID=100)
        await world.subnet("under4", "underlay", "192.168.56.0/24", gateway="192.168.56.1")
        await world.start_manager(kind=NetworkType.UNDERLAY)
        pod = await world.pod("plain")
        [instance] = await world.served("plain")
        assert instance.name == "192-168-56-2"
        address = instance.spec.address
        assert (address.version, address.ip, address.gateway) == ("4", "192.168.56.2/24", "192.168.56.1")
        assert (address.net_id, address.mac[:9]) == (100, "02:12:34:")
        assert (instance.spec.network, instance.spec.subnet) == ("underlay", "under4")
        binding = instance.spec.binding
        assert (binding.node_name, binding.pod_name, binding.pod_uid) == ("node1", "plain", pod.metadata.uid)
        referred = binding.referred_object
        assert (referred.kind, referred.name, referred.uid) == ("Pod", "plain", pod.metadata.uid)
        assert instance.metadata.finalizers == (labels.FINALIZER,)
        [owner] = instance.metadata.owner_references
        assert (owner.kind, owner.uid, owner.controller, owner.block_owner_deletion) == (
            "Pod",
            pod.metadata.uid,
            True,
            False,
        )
        assert instance.metadata.labels == {
            labels.VERSION: "v1.2",
            labels.SUBNET: "under4",
            labels.NETWORK: "underlay",
            labels.NODE: "node1",
            labels.POD: "plain",
            labels.POD_UID: pod.metadata.uid,
            labels.IP_FAMILY: "IPv4Only",
        }
        assert "192.168.56.2/24" in await world.event("plain", "IPAllocationSucceed")
        await world.claims_agree([instance])

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A2", "A3", "A4")
def test_families_and_types_come_from_annotations(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.subnet("over6", "overlay", "fe80::/120")
        await world.start_manager(kind=NetworkType.UNDERLAY)
        await world.pod("six", network_type="Overlay", ip_family="IPv6")
        await world.pod("both", network_type="overlay", ip_family="dualStack")
        await world.pod("four", network_type="OVERLAY", ip_family="ipv4")
        [six] = await world.served("six")
        assert six.spec.address.version == "6"
        first, second = await world.served("both", 2)
        assert (first.spec.address.version, second.spec.address.version) == ("4", "6")
        assert first.spec.network == second.spec.network == "overlay"
        assert first.spec.address.mac == second.spec.address.mac
        assert {i.metadata.labels[labels.IP_FAMILY] for i in (first, second)} == {"DualStack"}
        [four] = await world.served("four")
        assert four.spec.address.version == "4"

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A5")
def test_100_pods_of_rotating_families_are_all_served(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/27")
        await world.subnet("over4b", "overlay", "100.10.1.0/24")
        await world.subnet("over6", "overlay", "fe80::/124")
        await world.subnet("over6b", "overlay", "fd00::/64")
        await world.start_manager()
        families = ("IPv4", "IPv6", "DualStack")
        pods = await asyncio.gather(*(world.pod(f"p{n}", ip_family=families[n % 3]) for n in range(100)))
        for n, pod in enumerate(pods):
            assert len(await world.served(pod.name, 2 if n % 3 == 2 else 1, seconds=30)) == (n % 3 == 2) + 1
        found = await world.instances()
        assert len({of(i) for i in found}) == len(found) == 133

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A7", "A8")
def test_a_new_manager_continues_behind_the_last_address(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        for name in ("a", "b", "c"):
            await world.pod(name)
            await world.served(name)
        await world.delete(PODS, "a")
        await world.status(SUBNETS, "over4", last_allocated_ip="100.10.0.3", used=2)
        await world.stop_manager()
        await world.start_manager("two")
        await world.pod("d")
        assert [of(i) for i in await world.served("d")] == ["100.10.0.4/24"]

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A9")
def test_gateway_excluded_and_reserved_addresses_are_never_given(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(
            world,
            "100.10.0.0/29",
            gateway="100.10.0.1",
            excludeIPs=["100.10.0.3"],
            reservedIPs=["100.10.0.5"],
        )
        await world.start_manager()
        pods = await world.pods(3)
        found = await world.all_served(pods)
        assert {of(i) for i in found} == {"100.10.0.2/29", "100.10.0.4/29", "100.10.0.6/29"}
        await world.pod("late")
        message = await world.event("late", "IPAllocationFail")
        assert "over4 3 of 3" in message
        assert await world.instances("late") == []

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A12", "A13", "A20", "A33")
def test_private_subnets_serve_only_pods_that_name_them(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/30")
        await world.subnet("secret", "overlay", "100.10.1.0/24", private=True)
        await world.start_manager()
        await world.all_served(await world.pods(2))
        await world.pod("unnamed")
        assert "private" in await world.event("unnamed", "IPAllocationFail")
        await world.pod("named", specified_subnet="secret")
        [instance] = await world.served("named")
        assert (instance.spec.network, instance.spec.subnet) == ("overlay", "secret")
        await world.subnet("secret", "overlay", "100.10.1.0/24", private=False)
        await world.served("unnamed")
        await world.subnet("secret", "overlay", "100.10.1.0/24", private=True)
        await world.status(SUBNETS, "secret", used=2)
        assert len(await world.instances()) == 4

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A15")
def test_dual_stack_without_a_free_v6_address_takes_no_v4_address(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.subnet("over6", "overlay", "fd00::/126")
        await world.start_manager()
        await world.all_served(await world.pods(3, ip_family="IPv6"))
        await world.pod("both", ip_family="DualStack")
        assert "IPv6" in await world.event("both", "IPAllocationFail")
        status = await world.status(NETWORKS, "overlay", seconds=5)
        assert status.statistics.used == 0
        assert len(await world.claims()) == 3
        await world.delete(PODS, "p1")
        assert len(await world.served("both", 2)) == 2

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A21", "A23")
def test_what_is_missing_is_told_and_its_arrival_serves_everyone(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node()
        await world.start_manager()
        pods = await world.pods(20)
        assert "there is no Overlay network" in await world.event("p0", "IPAllocationFail")
        await world.network("overlay")
        assert "no usable IPv4 subnet" in await world.event("p0", "IPAllocationFail", "subnet")
        assert "create a Subnet" in await world.ready(NETWORKS, "overlay", "NoSubnet")
        await world.subnet("first", "overlay", "100.10.0.0/29")
        await world.status(SUBNETS, "first", used=6, available=0)
        await world.ready(SUBNETS, "first", "Full")
        await world.subnet("second", "overlay", "100.10.1.0/24")
        await world.all_served(pods)

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A22", "W23")
def test_a_freed_address_serves_one_of_50_waiting_pods(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/30")
        await world.start_manager()
        await world.all_served(await world.pods(2))
        await world.pods(50, "waiting")
        await world.event("waiting49", "IPAllocationFail")
        for name in ("p0", "p1"):
            await world.delete(PODS, name)
        for _ in range(100):
            served = [i for i in await world.instances() if i.spec.binding.pod_name.startswith("waiting")]
            if len(served) == 2:
                break
            await asyncio.sleep(0.05)
        assert len(served) == 2

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A24", "A25")
def test_long_names_of_pods_and_nodes_are_no_obstacle(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        node, pod = "n" * 80, "p" * 80
        await overlay(world)
        await world.node(node)
        await world.start_manager()
        await world.pod(pod, node)
        [instance] = await world.served(pod)
        assert len(instance.metadata.labels[labels.POD]) == len(instance.metadata.labels[labels.NODE]) == 63
        assert (instance.spec.binding.pod_name, instance.spec.binding.node_name) == (pod, node)

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A26", "A27")
def test_host_network_and_unscheduled_pods_get_nothing(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        await world.pod("host", host_network=True)
        await world.pod("homeless", node="")
        await world.pod("plain")
        await world.served("plain")
        assert {i.spec.binding.pod_name for i in await world.instances()} == {"plain"}

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A30", "A34", "A35")
def test_editing_a_subnet_under_load_gives_no_address_twice(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()

        async def edit() -> None:
            for n in range(50):
                await world.subnet("over4", "overlay", "100.10.0.0/24", reservedIPs=[f"100.10.0.{n + 1}"])

        pods, _ = await asyncio.gather(world.pods(100), edit())
        found = await world.all_served(pods)
        await world.subnet("over4", "overlay", "100.10.0.0/24", reservedIPs=[of(found[0]).split("/")[0]])
        await world.status(SUBNETS, "over4", total=253, used=99, available=154)
        await world.delete(PODS, found[0].spec.binding.pod_name)
        await world.subnet("over4", "overlay", "100.10.0.0/24")
        await world.status(SUBNETS, "over4", total=254, used=99, available=155)

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A36")
def test_the_net_id_of_the_subnet_counts(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node(rack="1")
        await world.network("underlay", "Underlay", netID=None)
        await world.subnet("u57", "underlay", "192.168.57.0/24", gateway="192.168.57.1", netID=57)
        await world.start_manager(kind=NetworkType.UNDERLAY)
        await world.pod("tagged")
        [instance] = await world.served("tagged")
        assert instance.spec.address.net_id == 57

    play(api_kubeconfig, scenario)


@pytest.mark.spec("E3", "E7", "E22", "A16", "A19")
def test_wrong_wishes_are_told_on_the_pod_and_served_once_corrected(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.network("underlay", "Underlay")
        await world.subnet("under4", "underlay", "192.168.56.0/24", gateway="192.168.56.1")
        await world.start_manager()
        await world.pod("lost", specified_network="nowhere")
        await world.pod("unfit", specified_network="underlay")
        await world.pod("mixed", specified_network="overlay", specified_subnet="under4")
        await world.pod("half", specified_subnet="over4", ip_family="DualStack")
        assert "network nowhere does not exist" in await world.event("lost", "IPAllocationFail")
        assert "rack=1" in await world.event("unfit", "IPAllocationFail")
        assert "belongs to network underlay" in await world.event("mixed", "IPAllocationFail")
        assert "v4subnet/v6subnet" in await world.event("half", "IPAllocationFail")
        await world.node(rack="1")
        [instance] = await world.served("unfit")
        assert instance.spec.network == "underlay"
        await world.pod("lost", specified_network="overlay")
        await world.served("lost")

    play(api_kubeconfig, scenario)


@pytest.mark.spec("E25", "W52")
def test_a_namespace_sets_defaults_and_may_break_later_without_disturbing_running_pods(
    api_kubeconfig: Path,
) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.subnet("over6", "overlay", "fd00::/64")
        await world.make_namespace(network_type="overlay", ip_family="DualStack")
        await world.start_manager(kind=NetworkType.UNDERLAY)
        await world.pod("runs")
        await world.served("runs", 2)
        await world.make_namespace(network_type="magic")
        await world.pod("new")
        assert "none of Underlay" in await world.event("new", "IPAllocationFail")
        await world.finish("runs", "Running", reported=False)
        await world.stop_manager()
        await world.start_manager("two")
        await world.make_namespace(network_type="Overlay")
        await world.served("new")
        assert await world.events("runs", "IPAllocationFail") == []
        assert len(await world.instances("runs")) == 2

    play(api_kubeconfig, scenario)


def test_manual_deletion_of_every_block_gives_no_address_twice(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/28")
        await world.start_manager()
        pods = await world.pods(5)
        await world.all_served(pods)
        await world.delete_blocks()
        more = await world.pods(5, "q")
        await world.served("q4")
        await world.stop_manager()
        await world.start_manager("two")
        await world.all_served([*pods, *more])

    play(api_kubeconfig, scenario)


@pytest.mark.spec("C3", "W10")
def test_an_instance_deleted_under_a_running_pod_comes_back_with_address_and_mac(
    api_kubeconfig: Path,
) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        pod = await world.pod("runs")
        [before] = await world.served("runs")
        await world.delete(IPINSTANCES, before.name)

        async def back() -> IPInstance | None:
            found = await world.instances("runs")
            fresh = [i for i in found if i.metadata.uid != before.metadata.uid]
            return fresh[0] if fresh else None

        after = await world.wait(back, "the IPInstance to come back")
        assert after.spec == before.spec
        await world.claims_agree([after])
        assert (await world.claims())["100.10.0.1"] == pod.metadata.uid

    play(api_kubeconfig, scenario)


def test_the_wishes_of_a_dual_stack_pod_with_named_subnets_are_met(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.subnet("other4", "overlay", "100.20.0.0/24")
        await world.subnet("over6", "overlay", "fd00::/64")
        await world.start_manager(family=IPFamily.DUAL_STACK)
        await world.pod("pair", specified_subnet="other4/over6")
        assert [i.spec.subnet for i in await world.served("pair", 2)] == ["other4", "over6"]

    play(api_kubeconfig, scenario)
