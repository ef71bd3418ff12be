"""Crashes, restarts, several managers at once, broken objects and an API server that goes away."""

import asyncio
import random
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from hybridnet.ipam.selection import IPFamily
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import Unavailable
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.manager.app import LEASE
from hybridnet.model.resource import IPINSTANCES, LEASES, PODS, SUBNETS
from tests.api.manager_world import World, many, own_server, play, world


async def dual_overlay(here: World, v4: str = "100.10.0.0/22") -> None:
    await here.node()
    await here.network("overlay")
    await here.subnet("over4", "overlay", v4)
    await here.subnet("over6", "overlay", "fd00::/64")


@pytest.mark.spec("F2", "W9")
def test_two_managers_forced_to_lead_give_200_pods_one_address_per_family(api_kubeconfig: Path) -> None:
    async def scenario(here: World) -> None:
        await dual_overlay(here)
        await here.start_manager("one", family=IPFamily.DUAL_STACK)
        await here.start_manager("two", family=IPFamily.DUAL_STACK)
        pods = await here.pods(200)
        found = await here.all_served(pods, 2)
        by_pod: dict[str, set[str]] = {}
        for instance in found:
            by_pod.setdefault(instance.spec.binding.pod_uid, set()).add(instance.spec.address.mac)
        assert len(by_pod) == 200
        assert all(len(macs) == 1 for macs in by_pod.values()), "both families share one MAC"
        await asyncio.sleep(2)
        assert len(await here.instances()) == 400, "nothing moves afterwards"
        await many(here.delete(PODS, pod.name) for pod in pods)
        await here.nothing_left(60)

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A29", "W1")
def test_two_managers_and_ten_namespaces_share_a_subnet_without_a_duplicate(api_kubeconfig: Path) -> None:
    async def scenario(here: World) -> None:
        await here.node()
        await here.network("overlay")
        await here.subnet("over4", "overlay", "100.10.0.0/25")
        await here.start_manager("one")
        await here.start_manager("two")
        spaces = [World(here.client, here.kubeconfig) for _ in range(10)]
        for space in spaces:
            await space.make_namespace()
        await asyncio.gather(*(space.pods(12) for space in spaces))

        async def all_there() -> list[Any] | None:
            found = (await here.client.list(IPINSTANCES)).items
            return found if len(found) == 120 else None

        found = await here.wait(all_there, "120 IPInstances in ten namespaces", 30)
        assert len({i.spec.address.ip for i in found}) == 120
        await here.claims_agree(found)

    play(api_kubeconfig, scenario)


@pytest.mark.spec("F1", "F3", "A31")
def test_managers_that_die_again_and_again_while_pods_come_and_go_lose_nothing(api_kubeconfig: Path) -> None:
    async def scenario(here: World) -> None:
        await dual_overlay(here)
        creating = asyncio.create_task(here.pods(150))
        for n in range(12):
            await here.start_manager(f"m{n}", family=IPFamily.DUAL_STACK)
            await asyncio.sleep(0.15 + 0.2 * random.random())  # noqa: S311
            await here.stop_manager(f"m{n}")
        pods = await creating
        await here.start_manager("last", family=IPFamily.DUAL_STACK)
        await here.all_served(pods, 2)

    play(api_kubeconfig, scenario)


@pytest.mark.spec("A32", "W20")
@pytest.mark.parametrize("claimed", [True, False])
def test_the_second_family_is_completed_after_a_crash(api_kubeconfig: Path, claimed: bool) -> None:
    async def scenario(here: World) -> None:
        await dual_overlay(here)
        await here.start_manager("one", family=IPFamily.DUAL_STACK)
        await here.pod("other")
        await here.served("other", 2)
        await here.pod("half")
        four, six = await here.served("half", 2)
        await here.stop_manager("one")
        await here.client.patch(IPINSTANCES, six.name, {"metadata": {"finalizers": None}}, here.namespace)
        await here.delete(IPINSTANCES, six.name)
        if not claimed:
            await here.drop_claim(str(ip_interface(six.spec.address.ip).ip))
        await here.make_namespace(ip_family="IPv4")
        await here.start_manager("two")
        again_four, again_six = await here.served("half", 2)
        assert again_four == four
        if claimed:
            assert again_six.spec == six.spec
        assert again_six.spec.address.mac == four.spec.address.mac
        await here.claims_agree(await here.instances())

    play(api_kubeconfig, scenario)


@pytest.mark.spec("W3", "G7")
def test_a_second_address_of_a_pod_is_taken_back_the_junior_one(api_kubeconfig: Path) -> None:
    async def scenario(here: World) -> None:
        await dual_overlay(here)
        await here.start_manager()
        pod = await here.pod("plain")
        [first] = await here.served("plain")
        binding = {
            "podUID": pod.metadata.uid,
            "podName": "plain",
            "nodeName": "node1",
            "referredObject": {"kind": "Pod", "name": "plain", "uid": pod.metadata.uid},
        }
        await asyncio.sleep(1.1)
        await here.spoil_instance("100-10-0-77", "100.10.0.77/22", **binding)
        await here.gone(IPINSTANCES, "100-10-0-77")
        await here.claims_agree([first])
        await here.stop_manager()
        await here.spoil_instance("100-10-0-77", "100.10.0.77/22", **binding)
        used = {"status": {"sandboxID": "box", "nodeName": "node1"}}
        await here.client.patch(IPINSTANCES, "100-10-0-77", used, here.namespace, subresource="status")
        await here.start_manager("two")
        await here.gone(IPINSTANCES, first.name)
        assert [i.name for i in await here.instances("plain")] == ["100-10-0-77"]
        assert await here.claims() == {"100.10.0.77": pod.metadata.uid}

    play(api_kubeconfig, scenario)


def test_one_of_two_candidates_leads_and_the_other_takes_over_a_released_lease(api_kubeconfig: Path) -> None:
    async def scenario(here: World) -> None:
        await dual_overlay(here)
        await here.start_manager("one", election=True)
        await here.pod("a")
        await here.served("a")
        await here.start_manager("two", election=True)
        assert (await here.client.get(LEASES, LEASE, here.namespace)).spec.holder_identity == "one"
        await here.stop_manager("one")
        await here.pod("b")
        await here.served("b")
        assert (await here.client.get(LEASES, LEASE, here.namespace)).spec.holder_identity == "two"

    play(api_kubeconfig, scenario)


def test_records_of_the_original_get_their_claims(api_kubeconfig: Path) -> None:
    async def scenario(here: World) -> None:
        await dual_overlay(here)
        pod = await here.pod("old")
        await here.spoil_instance(
            "100-10-0-1",
            "100.10.0.1/22",
            podUID=pod.metadata.uid,
            podName="old",
            nodeName="node1",
            referredObject={"kind": "Pod", "name": "old", "uid": pod.metadata.uid},
        )
        await here.start_manager()
        await here.pod("new")
        [new] = await here.served("new")
        assert new.spec.address.ip == "100.10.0.2/22"

        async def adopted() -> bool:
            return (await here.claims()).get("100.10.0.1") == pod.metadata.uid

        await here.wait(adopted, "the old record to be claimed")
        assert len(await here.instances("old")) == 1

    play(api_kubeconfig, scenario)


@pytest.mark.spec("W9")
def test_an_api_server_that_restarts_while_pods_are_created_costs_no_address() -> None:
    async def scenario(plane: ControlPlane) -> None:
        async with world(plane.kubeconfig) as here:
            await dual_overlay(here)
            await here.start_manager("one", family=IPFamily.DUAL_STACK)
            await here.start_manager("two", family=IPFamily.DUAL_STACK)
            creating = [asyncio.create_task(persist(here, f"p{n}")) for n in range(100)]
            for _ in range(2):
                await asyncio.sleep(0.4)
                await asyncio.to_thread(plane.stop_api_server)
                await asyncio.to_thread(plane.start_api_server)
                await asyncio.to_thread(plane.wait_ready)
            pods = await asyncio.gather(*creating)
            await here.all_served(pods, 2, seconds=60)
            await here.status(SUBNETS, "over4", used=100, seconds=20)

    with own_server() as plane:
        asyncio.run(scenario(plane))


async def persist(here: World, name: str) -> Any:
    """Create a pod, however often it takes."""
    while True:
        try:
            return await here.pod(name)
        except Unavailable:
            await asyncio.sleep(0.2)


def test_a_manager_without_an_api_server_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = tmp_path / "kubeconfig"
        config.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
            "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
            "clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n"
            "users: [{name: x, user: {}}]\n"
        )
        async with Client(load_config(config)) as client:
            here = World(client, config)
            await here.start_manager()
            await asyncio.sleep(1)
            assert here.runs("one")
            await here.stop_manager("one")

    asyncio.run(scenario())
