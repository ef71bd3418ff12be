"""Addresses come back: from deleted and finished pods, from deleted records, and only to whom they belong."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hybridnet.model import labels
from hybridnet.model.instance import Claim
from hybridnet.model.network import Statistics
from hybridnet.model.resource import IPINSTANCES, NETWORKS, PODS, SUBNETS
from tests.api.manager_world import World, play


async def overlay(world: World, cidr: str = "100.10.0.0/24", **fields: Any) -> None:
    await world.node()
    await world.network("overlay")
    await world.subnet("over4", "overlay", cidr, **fields)


@pytest.mark.spec("G1", "D5")
def test_a_deleted_pod_gives_everything_back(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.subnet("over6", "overlay", "fd00::/120")
        await world.start_manager()
        await world.pod("both", ip_family="DualStack")
        await world.served("both", 2)
        status = await world.status(NETWORKS, "overlay", dual_stack_statistics=Statistics(available=253))
        assert (status.statistics.available, status.ipv6_statistics.available) == (253, 254)
        await world.delete(PODS, "both")
        await world.nothing_left()
        await world.status(NETWORKS, "overlay", dual_stack_statistics=Statistics(available=254))

    play(api_kubeconfig, scenario)


@pytest.mark.spec("G2", "G3", "G4", "G5")
def test_finished_pods_give_their_address_back_at_once(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        for name in ("done", "evicted", "failed", "unreported"):
            await world.pod(name)
            await world.served(name)
        await world.finish("done", "Succeeded")
        await world.finish("evicted", "Failed", reason="Evicted", reported=False)
        await world.finish("failed", "Failed", reason="Error")
        await world.finish("unreported", "Succeeded", reported=False)
        for name in ("done", "evicted", "failed"):
            await world.event(name, "IPReleaseSucceed")
        await world.status(SUBNETS, "over4", used=1)
        assert [i.spec.binding.pod_name for i in await world.instances()] == ["unreported"]
        await world.finish("unreported", "Succeeded")
        await world.nothing_left()

    play(api_kubeconfig, scenario)


@pytest.mark.spec("F8")
def test_a_restart_with_finished_pods_says_nothing_again(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        for pod in await world.pods(10):
            await world.served(pod.name)
            await world.finish(pod.name, "Succeeded")
        await world.nothing_left()
        await world.event("p9", "IPReleaseSucceed")
        await world.stop_manager()
        await world.start_manager("two")
        await world.pod("new")
        await world.served("new")
        for n in range(10):
            assert len(await world.events(f"p{n}", "IPReleaseSucceed")) == 1
            assert len(await world.events(f"p{n}", "IPAllocationSucceed")) == 1

    play(api_kubeconfig, scenario)


@pytest.mark.spec("G6", "W19")
def test_an_address_is_freed_although_its_subnet_and_network_are_gone(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        await world.pod("orphan")
        await world.served("orphan")
        await world.delete(SUBNETS, "over4", "")
        await world.delete(NETWORKS, "overlay", "")
        await world.pod("late")
        await world.event("late", "IPAllocationFail", "no Overlay network")
        await world.delete(PODS, "orphan")
        await world.nothing_left()

    play(api_kubeconfig, scenario)


@pytest.mark.spec("G7", "W1", "W4")
def test_a_forged_instance_frees_nobodys_address(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        pod = await world.pod("owner")
        [real] = await world.served("owner")
        other = World(world.client, world.kubeconfig)
        await other.make_namespace()
        stranger = {"podUID": "no-such-uid", "podName": "x", "nodeName": "node1"}
        await other.spoil_instance("100-10-0-1", "100.10.0.1/24", **stranger)
        copied = {"podUID": pod.metadata.uid, "podName": "owner", "nodeName": "node1"}
        await other.spoil_instance("100-10-0-9", "100.10.0.1/24", **copied)
        for name in ("100-10-0-1", "100-10-0-9"):
            await other.delete(IPINSTANCES, name)
        await other.no_instances()
        assert await world.claims() == {"100.10.0.1": pod.metadata.uid}
        [still] = await world.instances("owner")
        assert still.metadata.uid == real.metadata.uid
        assert "which keeps it" in await other.event("100-10-0-1", "AddressNotOwned")
        await world.pod("second")
        [second] = await world.served("second")
        assert second.spec.address.ip == "100.10.0.2/24"

    play(api_kubeconfig, scenario)


@pytest.mark.spec("G8", "W26")
def test_records_of_pods_that_vanished_while_no_manager_ran_are_cleared(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        await world.all_served(await world.pods(10))
        await world.stop_manager()
        for n in range(9):
            await world.delete(PODS, f"p{n}")
        await world.start_manager("two")
        await world.status(SUBNETS, "over4", used=1)
        [left] = await world.instances()
        assert left.spec.binding.pod_name == "p9"
        await world.claims_agree([left])

    play(api_kubeconfig, scenario)


@pytest.mark.spec("G9", "W60")
def test_only_our_own_finalizer_is_removed(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world)
        await world.start_manager()
        await world.pod("guarded")
        [instance] = await world.served("guarded")
        patch = {"metadata": {"finalizers": [labels.FINALIZER, "example.com/theirs"]}}
        await world.client.patch(IPINSTANCES, instance.name, patch, world.namespace)
        await world.delete(PODS, "guarded")
        await world.wait(lambda: no_claims(world), "the claim to be freed")

        async def only_theirs() -> bool:
            found = await world.client.get(IPINSTANCES, instance.name, world.namespace)
            return found.metadata.finalizers == ("example.com/theirs",)

        await world.wait(only_theirs, "our finalizer to go")

    play(api_kubeconfig, scenario)


def test_a_pod_replaced_under_the_same_name_gets_its_own_address(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/30")
        await world.start_manager()
        for _ in range(6):
            pod = await world.pod("same")

            async def mine(uid: str = pod.metadata.uid) -> bool:
                found = await world.instances("same")
                return any(i.spec.binding.pod_uid == uid and not i.metadata.terminating for i in found)

            await world.wait(mine, "the new pod to be served")
            await world.delete(PODS, "same")
        await world.nothing_left()

    play(api_kubeconfig, scenario)


@pytest.mark.spec("W26")
def test_a_claim_that_never_got_its_record_is_freed_after_the_grace_period(
    api_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridnet.manager.audit.PERIOD_S", 0.3)
    monkeypatch.setattr("hybridnet.manager.audit.GRACE_S", 1.0)

    async def scenario(world: World) -> None:
        await overlay(world)
        pod = await world.pod("plain")
        await world.write_block("100.10.0.0/24", {7: Claim(uid="nobody", node="node1"), 9: Claim(uid="kept")})
        await world.start_manager()
        await world.served("plain")

        async def freed() -> bool:
            return await world.claims() == {"100.10.0.1": pod.metadata.uid, "100.10.0.9": "kept"}

        await world.wait(freed, "the orphan to be freed, the reserved one to stay")

    play(api_kubeconfig, scenario)


def test_100_pods_created_and_deleted_twice_leave_nothing(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/25")
        await world.subnet("over6", "overlay", "fd00::/64")
        await world.start_manager()
        for _ in range(2):
            pods = await world.pods(100, ip_family="DualStack")
            await world.all_served(pods, 2)
            await asyncio.gather(*(world.delete(PODS, pod.name) for pod in pods))
            await world.nothing_left(30)
        await world.status(SUBNETS, "over4", used=0, available=126)

    play(api_kubeconfig, scenario)


async def no_claims(world: World) -> bool:
    return not await world.claims()
