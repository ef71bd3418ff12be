"""Objects that make no sense, let in by an older API server: each is reported, none stops anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridnet.model.network import Statistics
from hybridnet.model.resource import IPINSTANCES, NETWORKS, SUBNETS
from tests.api.manager_world import World, own_server, play


@pytest.fixture(scope="module")
def lenient() -> Iterator[Path]:
    with own_server(lenient=True) as plane:
        yield plane.kubeconfig


async def overlay(world: World, cidr: str = "100.10.0.0/24", **fields: Any) -> None:
    await world.node()
    await world.network("overlay")
    await world.subnet("over4", "overlay", cidr, **fields)


@pytest.mark.spec("F6", "D1", "D6", "D7")
def test_bad_subnets_get_a_condition_and_stop_nothing(lenient: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, gateway="100.10.0.1")
        await world.subnet("garbage", "overlay", "10.0.0.1/24")
        await world.subnet("lost", "elsewhere", "10.1.0.0/24")
        await world.subnet("wide", "overlay", "100.10.0.0/16")
        await world.start_manager()
        assert "host bits" in await world.ready(SUBNETS, "garbage", "InvalidRange")
        assert "elsewhere does not exist" in await world.ready(SUBNETS, "lost", "UnknownNetwork")
        assert "overlaps 100.10.0.0/24" in await world.ready(SUBNETS, "wide", "Overlap")
        await world.ready(SUBNETS, "over4", "Usable")
        await world.pod("plain")
        await world.served("plain")
        numbers = Statistics(total=253, used=1, available=252)
        status = await world.status(NETWORKS, "overlay", statistics=numbers)
        assert status.node_list == ("node1",)
        assert status.subnet_list == ("garbage", "over4", "wide")
        await world.node("node2")
        await world.delete(SUBNETS, "wide")
        await world.status(
            NETWORKS, "overlay", node_list=("node1", "node2"), subnet_list=("garbage", "over4")
        )

    play(lenient, scenario)


@pytest.mark.spec("F4", "F5", "W44")
def test_broken_records_are_left_alone_and_stop_nothing(lenient: Path) -> None:
    async def scenario(world: World) -> None:
        await overlay(world, "100.10.0.0/22")
        await world.spoil_instance("garbage", "garbage", podUID="u1", podName="gone", nodeName="node1")
        await world.spoil_instance("100-10-0-1", "100.10.0.1/22", podUID="u2", podName="gone2")
        await world.start_manager()
        await world.pod("plain")
        [instance] = await world.served("plain")
        assert instance.spec.address.ip == "100.10.0.2/22", "an address with a record is not given away"
        names = {i.name for i in await world.instances()}
        assert {"garbage", "100-10-0-1"} < names
        await world.delete(IPINSTANCES, "garbage")
        await world.gone(IPINSTANCES, "garbage")

    play(lenient, scenario)
