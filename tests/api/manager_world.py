"""A world for the manager: a real API server, real managers, and pods that are born bound to a node.

No kubelet and no controllers run: what they would do (finish a pod, delete it) the tests do.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from hybridnet.ipam.claims import write_block
from hybridnet.ipam.selection import Defaults, IPFamily
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import ApiError, Conflict, NotFound
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.manager.app import ManagerConfig, serve
from hybridnet.model import crd
from hybridnet.model.address import Family, block_name, block_of
from hybridnet.model.core import Event, Pod
from hybridnet.model.instance import Claim, IPBlock, IPInstance
from hybridnet.model.labels import PREFIX
from hybridnet.model.meta import KubeObject
from hybridnet.model.network import Network, NetworkType, Subnet
from hybridnet.model.resource import (
    EVENTS,
    IPBLOCKS,
    IPINSTANCES,
    NAMESPACES,
    NETWORKS,
    NODES,
    PODS,
    SUBNETS,
    Resource,
)

T = TypeVar("T")
_numbers = itertools.count(1)


class World:
    """One test's namespace and objects."""

    def __init__(self, client: Client, kubeconfig: Path) -> None:
        self.client = client
        self.kubeconfig = kubeconfig
        self.namespace = f"ipam-{next(_numbers)}"
        self._managers: dict[str, asyncio.Task[None]] = {}

    # Managers -------------------------------------------------------------------------------------------

    async def start_manager(
        self,
        identity: str = "one",
        *,
        election: bool = False,
        kind: NetworkType = NetworkType.OVERLAY,
        family: IPFamily = IPFamily.V4_ONLY,
        leads: bool = True,
    ) -> None:
        """Run a manager inside this process, over a client of its own."""
        config = ManagerConfig(
            kubeconfig=self.kubeconfig,
            namespace=self.namespace,
            identity=identity,
            defaults=Defaults(kind, family),
            leader_election=election,
        )
        self._managers[identity] = asyncio.create_task(self._run(config))
        if leads:
            await asyncio.sleep(0)

    async def _run(self, config: ManagerConfig) -> None:
        async with Client(load_config(config.kubeconfig)) as client:
            await serve(client, config)

    async def stop_manager(self, identity: str = "one") -> None:
        """Cancel a manager wherever it is: whatever it was writing stays half done."""
        task = self._managers.pop(identity)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def stop(self) -> None:
        """Stop all managers; one that has crashed fails the test."""
        for identity in list(self._managers):
            await self.stop_manager(identity)

    # Objects --------------------------------------------------------------------------------------------

    async def apply(self, resource: Resource[Any], name: str, namespace: str = "", **content: Any) -> Any:
        """Server-side apply."""
        return await self.client.patch(
            resource,
            name,
            {"metadata": {"name": name, **content.pop("metadata", {})}, **content},
            namespace,
            kind="apply",
            field_manager="test",
            force=True,
        )

    async def network(self, name: str, kind: str = "Overlay", **spec: Any) -> Network:
        defaults = {"Overlay": {"netID": 4}, "Underlay": {"netID": 0, "nodeSelector": {"rack": "1"}}}
        network: Network = await self.apply(
            NETWORKS, name, spec={"type": kind, **defaults.get(kind, {}), **spec}
        )
        return network

    async def subnet(
        self, name: str, network: str, cidr: str, *, private: bool = False, **fields: Any
    ) -> Subnet:
        net_id = fields.pop("netID", None)
        spec: dict[str, Any] = {
            "network": network,
            "range": {"version": "6" if ":" in cidr else "4", "cidr": cidr, **fields},
        }
        if private:
            spec["config"] = {"private": True}
        if net_id is not None:
            spec["netID"] = net_id
        subnet: Subnet = await self.apply(SUBNETS, name, spec=spec)
        return subnet

    async def node(self, name: str = "node1", **labels: str) -> None:
        await self.apply(NODES, name, metadata={"labels": labels})

    async def make_namespace(self, name: str = "", **annotations: str) -> None:
        metadata = {"annotations": keys(annotations)}
        await self.apply(NAMESPACES, name or self.namespace, metadata=metadata)

    async def pod(
        self,
        name: str,
        node: str = "node1",
        *,
        namespace: str = "",
        host_network: bool = False,
        labels: dict[str, str] | None = None,
        **annotations: str,
    ) -> Pod:
        spec: dict[str, Any] = {
            "containers": [{"name": "c", "image": "none"}],
            "terminationGracePeriodSeconds": 0,
            "hostNetwork": host_network,
            "tolerations": [{"operator": "Exists"}],
        }
        if node:
            spec["nodeName"] = node
        pod: Pod = await self.apply(
            PODS,
            name,
            namespace or self.namespace,
            metadata={"annotations": keys(annotations), "labels": keys(labels or {})},
            spec=spec,
        )
        return pod

    async def pods(self, count: int, prefix: str = "p", **arguments: Any) -> list[Pod]:
        """Many pods, sixteen requests at a time."""
        return await many(self.pod(f"{prefix}{n}", **arguments) for n in range(count))

    async def delete(self, resource: Resource[Any], name: str, namespace: str | None = None) -> None:
        space = (self.namespace if namespace is None else namespace) if resource.namespaced else ""
        with contextlib.suppress(NotFound):
            await self.client.delete(resource, name, space)

    async def finish(self, name: str, phase: str, *, reported: bool = True, reason: str = "") -> None:
        """What the kubelet reports when a pod has ended."""
        statuses = [
            {
                "name": "c",
                "image": "none",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": {"exitCode": 0}},
            }
        ]
        status = {"phase": phase, "reason": reason, "containerStatuses": statuses if reported else []}
        await self.client.patch(PODS, name, {"status": status}, self.namespace, subresource="status")

    async def spoil_instance(self, name: str, address: str, **binding: Any) -> IPInstance:
        """An IPInstance that nobody allocated."""
        instance: IPInstance = await self.apply(
            IPINSTANCES,
            name,
            self.namespace,
            metadata={"finalizers": [f"{PREFIX}/ip-allocated"]},
            spec={
                "network": "net",
                "subnet": "sub",
                "address": {"version": "4", "ip": address, "mac": "02:12:34:00:00:01"},
                "binding": binding,
            },
        )
        return instance

    async def write_block(self, cidr: str, claims: dict[int, Claim]) -> None:
        """Claims that nobody here has made."""
        network = ip_network(cidr)
        number = int(network.network_address) // 256
        await self.client.create(IPBLOCKS, write_block(Family(network.version), number, "", claims))

    async def drop_claim(self, address: str) -> None:
        """Remove the claim on an address by hand."""
        network, offset = block_of(ip_address(address))
        block = await self.client.get(IPBLOCKS, block_name(network))
        claims = {key: claim for key, claim in block.spec.claims.items() if key != str(offset)}
        spec = msgspec.structs.replace(block.spec, claims=claims)
        await self.client.replace(IPBLOCKS, msgspec.structs.replace(block, spec=spec))

    async def delete_blocks(self) -> None:
        """What a careless operator might do."""
        for block in (await self.client.list(IPBLOCKS)).items:
            await self.client.delete(IPBLOCKS, block.name)

    # Questions ------------------------------------------------------------------------------------------

    async def instances(self, pod: str = "", namespace: str | None = None) -> list[IPInstance]:
        """Living IPInstances, of one pod or of the whole namespace, IPv4 first."""
        space = self.namespace if namespace is None else namespace
        found = (await self.client.list(IPINSTANCES, space)).items
        mine = [i for i in found if not pod or i.spec.binding.pod_name == pod]
        return sorted(
            mine, key=lambda i: (i.spec.address.version, i.metadata.creation_timestamp or "", i.name)
        )

    async def served(self, pod: str, count: int = 1, seconds: float = 10) -> list[IPInstance]:
        """Wait until a pod has its IPInstances."""

        async def enough() -> list[IPInstance] | None:
            found = await self.instances(pod)
            return found if len(found) >= count else None

        return await eventually(enough, f"{count} IPInstance(s) of pod {pod}", seconds)

    async def all_served(self, pods: Iterable[Pod], each: int = 1, seconds: float = 60) -> list[IPInstance]:
        """Wait until every pod has exactly its IPInstances, and check that nothing is held twice."""
        names = [pod.name for pod in pods]

        async def complete() -> list[IPInstance] | None:
            found = [i for i in await self.instances() if not i.metadata.terminating]
            by_pod = dict.fromkeys(names, 0)
            for instance in found:
                by_pod[instance.spec.binding.pod_name] = by_pod.get(instance.spec.binding.pod_name, 0) + 1
            return found if all(by_pod[name] == each for name in names) else None

        found = await eventually(complete, f"{each} IPInstance(s) of each of {len(names)} pods", seconds)
        addresses = [i.spec.address.ip for i in found]
        assert len(addresses) == len(set(addresses)), "an address was given twice"
        await self.claims_agree(found)
        return found

    async def claims_agree(self, instances: list[IPInstance]) -> None:
        """Every IPInstance has its claim, and there is no claim without one."""
        expected = {(str(ip_interface(i.spec.address.ip).ip), i.spec.binding.pod_uid) for i in instances}

        async def agree() -> bool:
            return {(address, uid) for address, uid in (await self.claims()).items()} == expected

        await eventually(agree, "claims and IPInstances to agree", 10)

    async def claims(self) -> dict[str, str]:
        """Every claimed address and the UID of its owner."""
        blocks: list[IPBlock] = (await self.client.list(IPBLOCKS)).items
        return {
            str(ip_interface(block.spec.cidr).ip + int(offset)): Claim.parse(text).uid
            for block in blocks
            for offset, text in block.spec.claims.items()
        }

    async def wait(self, question: Callable[[], Awaitable[T]], what: str, seconds: float = 10) -> Any:
        """Ask until the answer is true."""
        return await eventually(question, what, seconds)

    async def gone(self, resource: Resource[Any], name: str) -> None:
        """Wait until an object of this namespace is gone."""

        async def absent() -> bool:
            try:
                await self.client.get(resource, name, self.namespace)
            except NotFound:
                return True
            return False

        await eventually(absent, f"{resource.kind} {name} to go", 10)

    async def no_instances(self) -> None:
        """Wait until this namespace has no IPInstance."""

        async def empty() -> bool:
            return not await self.instances()

        await eventually(empty, "all IPInstances to go", 10)

    def runs(self, identity: str) -> bool:
        """Whether a manager is still running."""
        return not self._managers[identity].done()

    async def nothing_left(self, seconds: float = 10) -> None:
        """Wait until no IPInstance and no claim is left."""

        async def empty() -> bool:
            return not await self.instances() and not await self.claims()

        await eventually(empty, "all addresses to be given back", seconds)

    async def event(self, pod: str, reason: str, contains: str = "", seconds: float = 10) -> str:
        """Wait for an event of a pod and return its message."""

        async def seen() -> str | None:
            for message in await self.events(pod, reason):
                if contains in message:
                    return message
            return None

        return await eventually(seen, f"event {reason} of pod {pod} with {contains!r}", seconds)

    async def events(self, pod: str, reason: str) -> list[str]:
        """Messages of a pod's events."""
        found: list[Event] = (await self.client.list(EVENTS, self.namespace)).items
        return [e.message for e in found if e.involved_object.name == pod and e.reason == reason]

    async def ready(self, resource: Resource[Any], name: str, reason: str, seconds: float = 10) -> str:
        """Wait for a reason of the condition Ready and return its message."""

        async def seen() -> str | None:
            status = (await self.client.get(resource, name)).status
            found = [c for c in status.conditions if c.type == "Ready"] if status else []
            return found[0].message if found and found[0].reason == reason else None

        return await eventually(seen, f"{resource.kind} {name} to be {reason}", seconds)

    async def status(self, resource: Resource[Any], name: str, seconds: float = 10, **wanted: Any) -> Any:
        """Wait until fields of a status have these values; returns the status."""

        async def seen() -> Any:
            status = (await self.client.get(resource, name)).status
            fits = status and all(getattr(status, field) == value for field, value in wanted.items())
            return status if fits else None

        return await eventually(seen, f"{resource.kind} {name} to show {wanted}", seconds)

    # Cleaning up ----------------------------------------------------------------------------------------

    async def wipe(self) -> None:
        """Remove everything that a test may have left, whoever made it."""
        for resource in (PODS, IPINSTANCES, SUBNETS, NETWORKS, NODES, IPBLOCKS):
            found = (await self.client.list(resource)).items
            await many(self._remove(resource, obj) for obj in found)

    async def _remove(self, resource: Resource[Any], obj: KubeObject) -> None:
        namespace = obj.metadata.namespace
        try:
            if obj.metadata.finalizers:
                await self.client.patch(resource, obj.name, {"metadata": {"finalizers": None}}, namespace)
            await self.client.delete(resource, obj.name, namespace)
        except (NotFound, Conflict):
            return


def keys(short: dict[str, str]) -> dict[str, str]:
    """``ip_family`` is short for ``networking.alibaba.com/ip-family``."""
    return {f"{PREFIX}/{key.replace('_', '-')}": value for key, value in short.items()}


async def many(work: Iterable[Awaitable[T]], at_once: int = 16) -> list[T]:
    """Results in order, a bounded number in flight."""
    gate = asyncio.Semaphore(at_once)

    async def gated(one: Awaitable[T]) -> T:
        async with gate:
            return await one

    return list(await asyncio.gather(*(gated(one) for one in work)))


async def eventually(question: Callable[[], Awaitable[T]], what: str, seconds: float) -> Any:
    """Ask until the answer is true; the question may fail while the API server is away."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ApiError):
            if answer := await question():
                return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def world(kubeconfig: Path) -> AsyncIterator[World]:
    """A clean world, cleaned again afterwards."""
    async with Client(load_config(kubeconfig)) as client:
        here = World(client, kubeconfig)
        await here.wipe()
        await here.make_namespace()
        try:
            yield here
        finally:
            await here.stop()
            await here.wipe()


@contextlib.contextmanager
def own_server(*, lenient: bool = False) -> Iterator[ControlPlane]:
    """An API server for one test; a *lenient* one lets in what the rules of our CRDs refuse, as older ones did."""
    manifests = crd.manifests()
    for manifest in manifests if lenient else []:
        drop_rules(manifest)
    with ControlPlane.local() as plane:
        plane.kubectl("create", "-f-", stdin=yaml.safe_dump_all(manifests).encode())
        plane.kubectl("wait", "--for=condition=established", "crd", "--all", "--timeout=30s")
        yield plane


def drop_rules(schema: Any) -> None:
    """Remove all CEL rules from a manifest."""
    children: Iterable[Any] = schema
    if isinstance(schema, dict):
        schema.pop("x-kubernetes-validations", None)
        children = schema.values()
    for child in children:
        if isinstance(child, dict | list):
            drop_rules(child)


def play(kubeconfig: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    """Run one scenario in a world of its own."""

    async def run() -> None:
        async with world(kubeconfig) as here:
            await scenario(here)

    asyncio.run(run())
