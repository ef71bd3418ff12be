"""The client against a real API server: every verb, every error that a caller must tell apart."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, UnknownKind
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.core import Pod
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import GROUP, IPBLOCKS, NETWORKS, PODS, Resource
from tests.api.patience import SECONDS


def with_client(kubeconfig: Path, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Client(load_config(kubeconfig)) as client, asyncio.timeout(SECONDS):
            await scenario(client)

    asyncio.run(run())


def block(number: int, **claims: str) -> IPBlock:
    spec = IPBlockSpec(cidr=f"10.9.{number}.0/24", claims=claims)
    return IPBlock(metadata=ObjectMeta(name=f"10-9-{number}-0-24"), spec=spec)


def test_an_object_is_created_read_and_deleted(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.create(IPBLOCKS, block(0))
        assert made.metadata.uid
        assert await client.get(IPBLOCKS, made.name) == made
        with pytest.raises(AlreadyExists):
            await client.create(IPBLOCKS, block(0))
        await client.delete(IPBLOCKS, made.name)
        with pytest.raises(NotFound):
            await client.get(IPBLOCKS, made.name)
        with pytest.raises(NotFound):
            await client.delete(IPBLOCKS, made.name)

    with_client(api_kubeconfig, scenario)


def test_of_two_writers_of_one_version_the_second_has_a_conflict(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.create(IPBLOCKS, block(1))
        mine = IPBlock(metadata=made.metadata, spec=block(1, **{"7": "mine"}).spec)
        theirs = IPBlock(metadata=made.metadata, spec=block(1, **{"7": "theirs"}).spec)
        results = await asyncio.gather(
            client.replace(IPBLOCKS, mine), client.replace(IPBLOCKS, theirs), return_exceptions=True
        )
        winners = [result for result in results if isinstance(result, IPBlock)]
        assert len(winners) == 1
        assert [type(result) for result in results if result not in winners] == [Conflict]
        assert (await client.get(IPBLOCKS, made.name)).spec == winners[0].spec
        for stale in ({"resource_version": made.metadata.resource_version}, {"uid": "of-another"}):
            with pytest.raises(Conflict):
                await client.delete(IPBLOCKS, made.name, **stale)
        now = winners[0].metadata
        await client.delete(IPBLOCKS, made.name, uid=now.uid, resource_version=now.resource_version)

    with_client(api_kubeconfig, scenario)


def test_the_three_kinds_of_patch(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.create(IPBLOCKS, block(2))
        merged = await client.patch(IPBLOCKS, made.name, {"spec": {"claims": {"1": "u"}}})
        assert merged.spec.claims == {"1": "u"}
        test = {"op": "test", "path": "/spec/claims/1", "value": "other"}
        with pytest.raises(Invalid):
            await client.patch(IPBLOCKS, made.name, [test], kind="json")
        add = {"op": "add", "path": "/spec/claims/2", "value": "v"}
        assert len((await client.patch(IPBLOCKS, made.name, [add], kind="json")).spec.claims) == 2
        stale = {"metadata": {"resourceVersion": made.metadata.resource_version}}
        with pytest.raises(Conflict):
            await client.patch(IPBLOCKS, made.name, stale)
        await client.delete(IPBLOCKS, made.name)

    with_client(api_kubeconfig, scenario)


def test_server_side_apply_creates_owns_and_is_forced(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        wanted = {"metadata": {"name": "applied"}, "spec": {"type": "Overlay", "netID": 9}}
        made = await client.patch(NETWORKS, "applied", wanted, kind="apply", field_manager="one")
        assert made.spec.net_id == 9
        labelled = {**wanted, "metadata": {"name": "applied", "labels": {"a": "one"}}}
        await client.patch(NETWORKS, "applied", labelled, kind="apply", field_manager="one")
        other = {"metadata": {"labels": {"a": "two"}}}
        with pytest.raises(Conflict, match="conflict"):
            await client.patch(NETWORKS, "applied", other, kind="apply", field_manager="two")
        forced = await client.patch(NETWORKS, "applied", other, kind="apply", field_manager="two", force=True)
        assert forced.metadata.labels == {"a": "two"}
        await client.delete(NETWORKS, "applied")

    with_client(api_kubeconfig, scenario)


def test_status_is_written_apart_from_the_rest(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        wanted = {"spec": {"type": "Overlay", "netID": 9}}
        await client.patch(NETWORKS, "stated", wanted, kind="apply")
        both = {"spec": {"netID": 10}, "status": {"subnetList": ["a"], "statistics": {"total": 2**40}}}
        written = await client.patch(NETWORKS, "stated", both, subresource="status")
        assert written.status is not None
        assert written.status.subnet_list == ("a",)
        assert written.status.statistics is not None
        assert written.status.statistics.total == 2**40
        assert written.spec.net_id == 9
        await client.delete(NETWORKS, "stated")

    with_client(api_kubeconfig, scenario)


def test_an_invalid_object_is_refused_in_the_words_of_its_schema(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(Invalid, match="netID"):
            await client.patch(NETWORKS, "bad", {"spec": {"type": "Overlay"}}, kind="apply")

    with_client(api_kubeconfig, scenario)


def test_a_list_follows_its_selectors(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
            spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
            labels = {"name": name}
            pod = {"metadata": {"labels": labels}, "spec": spec}
            await client.patch(PODS, name, pod, "default", kind="apply")
        on_node = await client.list(PODS, field_selector="spec.nodeName=n1", page_size=1)
        assert sorted(pod.name for pod in on_node.items) == ["a", "b"]
        labelled = await client.list(PODS, "default", label_selector="name in (b,c)")
        assert sorted(pod.name for pod in labelled.items) == ["b", "c"]
        assert (await client.list(PODS, "kube-system")).items == []
        await asyncio.gather(*(client.delete(PODS, name, "default") for name in ("a", "b", "c")))

    with_client(api_kubeconfig, scenario)


def test_changes_come_in_order_from_a_version_on(api_kubeconfig: Path) -> None:
    async def scenario(client: Client) -> None:
        start = (await client.list(IPBLOCKS)).resource_version
        opened = []
        made = await client.create(IPBLOCKS, block(3))
        await client.delete(IPBLOCKS, made.name)
        told = []
        async for change in client.watch(IPBLOCKS, start, on_open=lambda: opened.append(True)):
            told.append((change.type, change.object.name if change.object else ""))
            if change.type == "DELETED":
                break
        assert opened
        assert told == [("ADDED", made.name), ("DELETED", made.name)]

    with_client(api_kubeconfig, scenario)


def test_a_kind_that_the_server_does_not_know_is_not_an_object_that_is_missing(api_kubeconfig: Path) -> None:
    unknown = Resource(Pod, GROUP, "v1", "gadgets", "Gadget", namespaced=True)

    async def scenario(client: Client) -> None:
        with pytest.raises(UnknownKind, match="apply the CustomResourceDefinitions"):
            await client.list(unknown)
        with pytest.raises(UnknownKind):
            await client.get(unknown, "a", "default")
        with pytest.raises(NotFound):
            await client.get(PODS, "a", "no-such-namespace")

    with_client(api_kubeconfig, scenario)


def test_who_may_not_is_told_what_is_missing(api_server: ControlPlane) -> None:
    async def scenario(client: Client) -> None:
        told = r'User "nobody" cannot list resource "ipblocks" .*: apply the RBAC manifests'
        with pytest.raises(Forbidden, match=told):
            await client.list(IPBLOCKS)

    with_client(api_server.kubeconfig_for("nobody"), scenario)
