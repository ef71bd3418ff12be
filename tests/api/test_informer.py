"""Informers against a real API server: order, indexes, outages, expiry, malformed objects."""

import asyncio
import base64
import http.client
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import Expired, KubeError, TooManyRequests
from hybridnet.kube.informer import Event, EventKind, Informer
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import GROUP, IPBLOCKS
from tests.api.raw import RawApi

ADDED, MODIFIED, DELETED = EventKind.ADDED, EventKind.MODIFIED, EventKind.DELETED
PATIENCE = 60.0
"""Seconds after which a test gives up; far more than anything here takes."""


def block(name: str, node: str = "") -> IPBlock:
    claims = {"1": f"u {node}"} if node else {}
    return IPBlock(metadata=ObjectMeta(name=name), spec=IPBlockSpec(cidr="10.202.0.0/24", claims=claims))


def nodes_of(obj: IPBlock) -> list[str]:
    return [text.split()[1] for text in obj.spec.claims.values()]


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; it may be about anything, so it is looked at now and then."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Watched:
    """A running informer and what its handler was told."""

    def __init__(self, informer: Informer[IPBlock]) -> None:
        self.informer = informer
        self.told: list[tuple[EventKind, str]] = []
        self.events: list[Event[IPBlock]] = []
        informer.add_handler(self._take)

    def _take(self, event: Event[IPBlock]) -> None:
        self.told.append((event.kind, event.object.name))
        self.events.append(event)

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def until_told(self, *told: tuple[EventKind, str]) -> None:
        await self.until(lambda: set(told) <= set(self.told))


@asynccontextmanager
async def watched(client: Client, **options: Any) -> AsyncIterator[Watched]:
    informer = Informer(client, IPBLOCKS, **options)
    result = Watched(informer)
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await informer.wait_synced()
        yield result
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def with_client(kubeconfig: Path, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Client(load_config(kubeconfig)) as client:
            try:
                await scenario(client)
            finally:
                for leftover in (await client.list(IPBLOCKS)).items:
                    await client.delete(IPBLOCKS, leftover.name)

    asyncio.run(run())


def etcd(plane: ControlPlane, action: str, **body: Any) -> dict[str, Any]:
    """One call of etcd's JSON gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", plane.endpoint.etcd_ports[0], timeout=10)
    connection.request("POST", f"/v3/kv/{action}", json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert "error" not in answer, answer
    return dict(answer)


def key_of(name: str) -> str:
    return base64.b64encode(f"/registry/{GROUP}/ipblocks/{name}".encode()).decode()


@asynccontextmanager
async def outage(plane: ControlPlane) -> AsyncIterator[None]:
    """Nobody answers inside; afterwards the API server is ready."""
    plane.stop_api_server()
    try:
        yield
    finally:
        plane.start_api_server()
        await asyncio.to_thread(plane.wait_ready)


async def watch_once_ready(client: Client, version: str) -> None:
    """Watch until it ends; a server that has just started refuses watches for a moment."""
    while True:
        try:
            async for _ in client.watch(IPBLOCKS, version):
                pass
        except TooManyRequests:
            await asyncio.sleep(0.1)


def test_handlers_are_told_of_every_change_in_order(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        async with watched(client) as seen:
            made = await client.create(IPBLOCKS, block("life"))
            await client.patch(IPBLOCKS, "life", {"metadata": {"labels": {"a": "b"}}})
            await client.delete(IPBLOCKS, "life")
            await seen.until(lambda: len(seen.told) >= 3)
            assert seen.told == [(ADDED, "life"), (MODIFIED, "life"), (DELETED, "life")]
            assert seen.events[1].old == made
            assert len(seen.informer) == 0

    with_client(api_kubeconfig, scenario)


def test_what_is_there_before_the_start_comes_as_added(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        names = [f"early-{number}" for number in range(3)]
        for name in names:
            await client.create(IPBLOCKS, block(name))
        async with watched(client) as seen:
            assert set(seen.told) == {(ADDED, name) for name in names}
            found = seen.informer.get("early-1")
            assert found is not None
            assert found.name == "early-1"
            assert {obj.name for obj in seen.informer.items()} == set(names)

    with_client(api_kubeconfig, scenario)


def test_a_list_of_many_pages_is_complete(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        names = {f"page-{number}" for number in range(23)}
        await asyncio.gather(*(client.create(IPBLOCKS, block(name)) for name in names))
        found = await client.list(IPBLOCKS, page_size=5)
        assert {obj.name for obj in found.items} == names
        assert len(found.items) == len(names)

    with_client(api_kubeconfig, scenario)


def test_an_index_follows_its_objects(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        async with watched(client, indexes={"node": nodes_of}) as seen:
            find = seen.informer.by_index
            await client.create(IPBLOCKS, block("one", "node-a"))
            await client.create(IPBLOCKS, block("two", "node-a"))
            await seen.until(lambda: len(find("node", "node-a")) == 2)
            await client.patch(IPBLOCKS, "two", {"spec": {"claims": {"1": "u node-b"}}})
            await seen.until(lambda: find("node", "node-b"))
            assert [obj.name for obj in find("node", "node-a")] == ["one"]
            await client.delete(IPBLOCKS, "one")
            await seen.until(lambda: not find("node", "node-a"))
            assert [obj.name for obj in find("node", "node-b")] == ["two"]
            assert find("node", "never-seen") == []

    with_client(api_kubeconfig, scenario)


def test_an_object_that_no_longer_matches_is_deleted_here(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(IPBLOCKS, block("other"))
        async with watched(client, label_selector="node=a") as seen:
            await client.create(IPBLOCKS, block("mine"))
            await client.patch(IPBLOCKS, "mine", {"metadata": {"labels": {"node": "a"}}})
            await seen.until_told((ADDED, "mine"))
            await client.patch(IPBLOCKS, "mine", {"metadata": {"labels": {"node": "b"}}})
            await seen.until_told((DELETED, "mine"))
            assert len(seen.informer) == 0
            assert await client.get(IPBLOCKS, "mine")

    with_client(api_kubeconfig, scenario)


def test_a_handler_that_raises_stops_nothing(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        def raise_always(event: Event[IPBlock]) -> None:
            raise LookupError(event.object.name)

        informer = Informer(client, IPBLOCKS)
        informer.add_handler(raise_always)
        seen = Watched(informer)
        task = asyncio.create_task(informer.run())
        await client.create(IPBLOCKS, block("loud"))
        await seen.until_told((ADDED, "loud"))
        task.cancel()

    with_client(api_kubeconfig, scenario)


def test_an_outage_leaves_the_copy_and_ends_by_itself(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(IPBLOCKS, block("stays"))
        async with watched(client) as seen:
            async with outage(api_server):
                with pytest.raises(KubeError, match="is the API server"):
                    await client.get(IPBLOCKS, "stays")
                assert seen.informer.get("stays") is not None
            await client.create(IPBLOCKS, block("later"))
            await seen.until_told((ADDED, "later"))
            assert seen.told.count((ADDED, "stays")) == 1
            assert (DELETED, "stays") not in seen.told

    with_client(api_kubeconfig, scenario)


def test_an_informer_can_start_before_the_api_server(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.create(IPBLOCKS, block("patient"))
        informer = Informer(client, IPBLOCKS)
        async with outage(api_server):
            task = asyncio.create_task(informer.run())
            await asyncio.sleep(0.3)
            assert not informer.synced
        async with asyncio.timeout(PATIENCE):
            await informer.wait_synced()
        assert informer.get("patient") is not None
        task.cancel()

    with_client(api_kubeconfig, scenario)


def test_a_deletion_during_an_outage_is_told_afterwards(
    api_server: ControlPlane, api_kubeconfig: Path
) -> None:
    async def scenario(client: Client) -> None:
        for name in ("kept", "gone"):
            await client.create(IPBLOCKS, block(name))
        async with watched(client, indexes={"all": lambda _: ["x"]}) as seen:
            async with outage(api_server):
                assert etcd(api_server, "deleterange", key=key_of("gone"))["deleted"] == "1"
            await seen.until_told((DELETED, "gone"))
            assert [obj.name for obj in seen.informer.items()] == ["kept"]
            assert [obj.name for obj in seen.informer.by_index("all", "x")] == ["kept"]

    with_client(api_kubeconfig, scenario)


def test_a_watch_from_a_version_too_old_is_expired(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        old = (await client.list(IPBLOCKS)).resource_version
        for _ in range(3):
            await client.create(IPBLOCKS, block("flicker"))
            await client.delete(IPBLOCKS, "flicker")
        revision = etcd(api_server, "range", key=key_of("none"))["header"]["revision"]
        async with outage(api_server):
            etcd(api_server, "compaction", revision=revision, physical=True)
        with pytest.raises(Expired):
            async with asyncio.timeout(PATIENCE):
                await watch_once_ready(client, old)

    with_client(api_kubeconfig, scenario)


@asynccontextmanager
async def lax_schema(plane: ControlPlane) -> AsyncIterator[None]:
    """For a while the API server takes any IPBlock, as an older version of the schema might have."""
    name = f"ipblocks.{GROUP}"
    strict = yaml.safe_load(plane.kubectl("get", "crd", name, "--output=yaml"))["spec"]["versions"]
    lax = [{**strict[0], "schema": {"openAPIV3Schema": LAX}}]
    set_versions(plane, name, lax)
    try:
        yield
    finally:
        set_versions(plane, name, strict)


LAX = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def set_versions(plane: ControlPlane, name: str, versions: list[dict[str, Any]]) -> None:
    patch = [{"op": "replace", "path": "/spec/versions", "value": versions}]
    plane.kubectl("patch", "crd", name, "--type=json", f"--patch={json.dumps(patch)}")


async def write_anyhow(api: RawApi, method: str, name: str, spec: object) -> None:
    """Write once the schema in force allows it."""
    manifest = {
        "apiVersion": IPBLOCKS.api_version,
        "kind": "IPBlock",
        "metadata": {"name": name},
        "spec": spec,
    }
    path = IPBLOCKS.path(name=name if method == "PATCH" else "")
    content = "application/merge-patch+json" if method == "PATCH" else ""
    await until(lambda: api.send(method, path, manifest, content)[0] in (200, 201))


def test_a_malformed_object_is_set_aside_alone(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        api = RawApi(api_kubeconfig)
        await client.create(IPBLOCKS, block("good"))
        await client.create(IPBLOCKS, block("turns"))
        async with watched(client) as seen, lax_schema(api_server):
            informer = seen.informer
            await write_anyhow(api, "POST", "bad", {"cidr": 7})
            await write_anyhow(api, "PATCH", "turns", {"claims": "none"})
            await seen.until(lambda: {("", "bad"), ("", "turns")} <= informer.rejected.keys())
            assert informer.get("bad") is None
            assert informer.get("turns") is not None, "the last good state stays"
            await client.create(IPBLOCKS, block("after"))
            await seen.until_told((ADDED, "after"))

            async with watched(client) as late:
                assert {obj.name for obj in late.informer.items()} == {"good", "after"}
                assert late.informer.rejected.keys() == {("", "bad"), ("", "turns")}

            await write_anyhow(api, "PATCH", "bad", {"cidr": "10.202.1.0/24"})
            await seen.until_told((ADDED, "bad"))
            assert informer.rejected.keys() == {("", "turns")}
            await client.delete(IPBLOCKS, "turns")
            await seen.until_told((DELETED, "turns"))
            assert not informer.rejected
        api.close()

    with_client(api_kubeconfig, scenario)
