"""A burst of pods against a real API server: how long until all IPInstances are written, by the real manager.

The baseline is the floor that the API server sets: as many bare IPInstances, created by one client with as many
requests in flight, right before. Ours writes the claims, the events and the status besides. Values are objects per
second; etcd, API server, manager and this program share the machine.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import yaml

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.informer import Informer
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model import crd
from hybridnet.model.instance import Address, IPInstance, IPInstanceSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import IPINSTANCES, NAMESPACES, NETWORKS, NODES, PODS, SUBNETS, Resource
from report import Better, Result, compare, note, parser, publish

NAMESPACE = "burst"
CASES = ((200, "DualStack"), (1000, "IPv4Only"))
TARGET = 0.4
IN_FLIGHT = 32


async def apply(
    client: Client, resource: Resource, name: str, namespace: str = "", **content: object
) -> None:
    body = {"metadata": {"name": name}, **content}
    await client.patch(resource, name, body, namespace, kind="apply", field_manager="bench")


async def prepare(client: Client) -> None:
    await apply(client, NAMESPACES, NAMESPACE)
    await apply(client, NODES, "node1")
    await apply(client, NETWORKS, "overlay", spec={"type": "Overlay", "netID": 4})
    for name, version, cidr in (("four", "4", "100.64.0.0/16"), ("six", "6", "fd00::/64")):
        spec = {"network": "overlay", "range": {"version": version, "cidr": cidr}}
        await apply(client, SUBNETS, name, spec=spec)


async def in_flight(calls: list[Awaitable[object]]) -> None:
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(call: Awaitable[object]) -> None:
        async with gate:
            await call

    await asyncio.gather(*(one(call) for call in calls))


async def create_pods(client: Client, count: int) -> None:
    spec = {
        "nodeName": "node1",
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "none"}],
        "tolerations": [{"operator": "Exists"}],
    }
    await in_flight([apply(client, PODS, f"pod{n}", NAMESPACE, spec=spec) for n in range(count)])


class Records:
    """The IPInstances of the namespace, as a watch brings them."""

    def __init__(self, client: Client) -> None:
        self.informer = Informer(client, IPINSTANCES, namespace=NAMESPACE)
        self._changed = asyncio.Event()
        self.informer.add_handler(lambda _: self._changed.set())

    async def until(self, condition: Callable[[int], bool]) -> None:
        """Wait until their number is as wanted."""
        while not condition(len(self.informer)):
            await self._changed.wait()
            self._changed.clear()


@contextlib.asynccontextmanager
async def manager(kubeconfig: Path, family: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hybridnet",
        "manager",
        f"--kubeconfig={kubeconfig}",
        f"--default-ip-family={family}",
        "--no-leader-election",
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def ours(client: Client, kubeconfig: Path, pods: int, family: str) -> float:
    """Objects per second of the manager, from the first IPInstance to the last."""
    wanted = pods * (2 if family == "DualStack" else 1)
    await create_pods(client, pods)
    records = Records(client)
    following = asyncio.create_task(records.informer.run())
    try:
        async with manager(kubeconfig, family):
            await records.until(lambda number: number > 0)
            begin, begun = time.perf_counter(), len(records.informer)
            await records.until(lambda number: number >= wanted)
            seconds = time.perf_counter() - begin
            await in_flight([client.delete(PODS, f"pod{n}", NAMESPACE) for n in range(pods)])
            await records.until(lambda number: number == 0)
    finally:
        following.cancel()
    return (wanted - begun) / seconds


async def baseline(client: Client, count: int) -> float:
    """Objects per second of one client that only creates them."""
    spec = IPInstanceSpec(
        network="n", subnet="s", address=Address(version="4", ip="10.0.0.1/24", mac="02:12:34:00:00:01")
    )
    objects = [
        IPInstance(metadata=ObjectMeta(name=f"bare{n}", namespace=NAMESPACE, labels={"a": "b"}), spec=spec)
        for n in range(count)
    ]
    begin = time.perf_counter()
    await in_flight([client.create(IPINSTANCES, obj) for obj in objects])
    seconds = time.perf_counter() - begin
    await in_flight([client.delete(IPINSTANCES, obj.name, NAMESPACE) for obj in objects])
    return count / seconds


async def measure(kubeconfig: Path, rounds: int) -> list[Result]:
    results = []
    async with Client(load_config(kubeconfig)) as client:
        await prepare(client)
        for pods, family in CASES:
            objects = pods * (2 if family == "DualStack" else 1)
            pairs = []
            for number in range(rounds):
                note(f"{pods} pods, {family}, round {number + 1} of {rounds}")
                pairs.append((await baseline(client, objects), await ours(client, kubeconfig, pods, family)))
            floor, mine = max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
            name = f"{pods} pods, {family}: IPInstances/s"
            results.append(compare(name, mine, floor, TARGET, Better.HIGHER))
    return results


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="rounds; the best counts")
    chosen = options.parse_args()
    with ControlPlane.local() as plane:
        plane.kubectl("create", "-f-", stdin=yaml.safe_dump_all(crd.manifests()).encode())
        plane.kubectl("wait", "--for=condition=established", "crd", "--all", "--timeout=30s")
        results = asyncio.run(measure(plane.kubeconfig, chosen.rounds))
    publish("a burst of pods", results, as_json=chosen.json)


if __name__ == "__main__":
    main()
