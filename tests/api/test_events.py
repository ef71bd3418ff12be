"""Events against a real API server: what ``kubectl describe`` shows of them."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.events import LIMIT, EventRecorder
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.core import Event, ObjectReference
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import Network, NetworkSpec
from hybridnet.model.resource import EVENTS, NETWORKS
from tests.api.patience import until


def with_recorder(kubeconfig: Path, scenario: Callable[[Client, EventRecorder], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Client(load_config(kubeconfig)) as client:
            await scenario(client, EventRecorder(client, "hybridnet-test"))

    asyncio.run(run())


def pod(name: str) -> ObjectReference:
    return ObjectReference(api_version="v1", kind="Pod", namespace="default", name=name, uid=f"uid-{name}")


async def events_of(client: Client, target: ObjectReference) -> list[Event]:
    selector = f"involvedObject.uid={target.uid}"
    return (await client.list(EVENTS, field_selector=selector)).items


def test_repeats_raise_a_count_and_different_messages_stay_apart(api_kubeconfig: Path) -> None:
    async def scenario(client: Client, recorder: EventRecorder) -> None:
        target = pod("repeated")
        for _ in range(3):
            recorder.event(target, "Warning", "NoAddress", "subnet is full")
        await recorder.flush()
        for _ in range(4):
            recorder.event(target, "Warning", "NoAddress", "subnet is full")
        recorder.event(target, "Normal", "Served", "has 10.0.0.1")
        await recorder.flush()
        found = {event.message: event for event in await events_of(client, target)}
        assert {message: event.count for message, event in found.items()} == {
            "subnet is full": 7,
            "has 10.0.0.1": 1,
        }
        assert found["subnet is full"].source.component == "hybridnet-test"

    with_recorder(api_kubeconfig, scenario)


def test_an_event_that_the_server_has_forgotten_is_written_anew(api_kubeconfig: Path) -> None:
    async def scenario(client: Client, recorder: EventRecorder) -> None:
        target = pod("forgotten")
        recorder.event(target, "Warning", "NoAddress", "subnet is full")
        await recorder.flush()
        for event in await events_of(client, target):
            await client.delete(EVENTS, event.name, "default")
        recorder.event(target, "Warning", "NoAddress", "subnet is full")
        await recorder.flush()
        assert [event.count for event in await events_of(client, target)] == [1]

    with_recorder(api_kubeconfig, scenario)


def test_describe_shows_the_events_of_a_cluster_wide_object(api_server: ControlPlane) -> None:
    async def scenario(client: Client, recorder: EventRecorder) -> None:
        spec = NetworkSpec(type="Overlay", net_id=4)
        made = await client.create(NETWORKS, Network(metadata=ObjectMeta(name="told"), spec=spec))
        target = ObjectReference(
            api_version=NETWORKS.api_version, kind="Network", name="told", uid=made.metadata.uid
        )
        recorder.event(target, "Warning", "NoNode", "label the nodes")
        await recorder.flush()

    with_recorder(api_server.kubeconfig, scenario)
    shown = api_server.kubectl("describe", "network", "told")
    assert re.search(r"Warning\s+NoNode\s+\S+\s+hybridnet-test\s+label the nodes", shown), shown
    api_server.kubectl("delete", "network", "told")


def test_events_wait_for_an_api_server_that_is_away(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(client: Client, recorder: EventRecorder) -> None:
        target = pod("patient")
        api_server.stop_api_server()
        for _ in range(2):
            recorder.event(target, "Warning", "NoAddress", "subnet is full")
            await asyncio.sleep(0.5)
        api_server.start_api_server()
        await asyncio.to_thread(api_server.wait_ready)

        async def written() -> bool:
            return [event.count for event in await events_of(client, target)] == [2]

        await until(written)

    with_recorder(api_kubeconfig, scenario)


def test_a_flood_is_bounded_and_an_event_that_is_refused_stops_no_other(api_kubeconfig: Path) -> None:
    async def scenario(client: Client, recorder: EventRecorder) -> None:
        nowhere = ObjectReference(kind="Pod", namespace="not-there", name="lost", uid="uid-lost")
        recorder.event(nowhere, "Normal", "Served", "in a namespace that does not exist")
        target = pod("after")
        recorder.event(target, "Normal", "Served", "goes on")
        await recorder.flush()
        assert len(await events_of(client, target)) == 1
        for number in range(LIMIT + 100):
            recorder.event(pod(f"flood-{number}"), "Normal", "Flood", "one of many")
        assert recorder.dropped == 100

    with_recorder(api_kubeconfig, scenario)
