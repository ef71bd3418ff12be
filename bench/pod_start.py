"""Pods from their creation until kubelet says that they run, on real kubelets.

Two labs are up side by side, ours and one with Debian's bridge plugin, both dual stack, and take turns, so the
machine is shared in the same way. All pods of a round are created at once; seconds until half of them, and until
the last of them, was seen running, each counted from the pod's own creation. The median of the rounds counts.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import report
import wires
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.lab import cluster
from hybridnet.lab.cluster import Cluster
from hybridnet.lab.image import IMAGE
from hybridnet.lab.processes import wait_for
from hybridnet.lab.progress import Silent
from hybridnet.lab.state import NetworkPlugin
from hybridnet.model.resource import IPINSTANCES, PODS, Resource
from report import Better, Result

TARGET = 1.0
LABS = {"benchours": NetworkPlugin.HYBRIDNET, "benchbase": NetworkPlugin.BRIDGE}
NAMESPACE = "default"
AT_ONCE = 16
"""Requests that create or delete pods, in flight."""
TIMEOUT = 600.0
SETTLE_SECONDS = 3.0


@contextlib.contextmanager
def labs(nodes: int) -> Iterator[dict[str, Cluster]]:
    """Both labs, up; gone afterwards, whatever happens."""
    with wires.interruptible(_remove_labs):
        _remove_labs()
        made = {}
        for name, plugin in LABS.items():
            made[name] = cluster.up(name, Silent(), nodes=nodes, network_plugin=plugin)
            _wait_account(made[name])
            report.note(f"lab {name} is up")
        yield made


def _remove_labs() -> None:
    for name in LABS:
        cluster.down(name)


def _wait_account(lab: Cluster) -> None:
    """Until pods can be created: their service account is there."""

    def there() -> bool:
        return bool(lab.kubectl("get", "serviceaccount", "default", "--ignore-not-found", "--output=name"))

    wait_for("the default service account", there, timeout=60, interval=0.3)


async def start_and_end(lab: Cluster, count: int) -> list[float]:
    """Create *count* pods, wait until they run, delete them; seconds from creation to running, sorted."""
    ours = lab.description.network_plugin is NetworkPlugin.HYBRIDNET
    async with Client(load_config(lab.kubeconfig)) as client:
        version = await client.newest_version(PODS, NAMESPACE)
        running: dict[str, float] = {}
        watcher = asyncio.create_task(_watch(client, version, running, count))
        created: dict[str, float] = {}
        names = [f"pod{number}" for number in range(count)]
        await _in_flight([_create(client, name, created) for name in names])
        async with asyncio.timeout(TIMEOUT):
            await watcher
        times = sorted(running[name] - created[name] for name in names)
        await _in_flight([client.delete(PODS, name, NAMESPACE) for name in names])
        async with asyncio.timeout(TIMEOUT):
            await _emptied(client, *((PODS, IPINSTANCES) if ours else (PODS,)))
        return times


async def _create(client: Client, name: str, created: dict[str, float]) -> None:
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    created[name] = time.monotonic()
    body: dict[str, object] = {"metadata": {"name": name}, "spec": spec}
    await client.patch(PODS, name, body, NAMESPACE, kind="apply", field_manager="bench")


async def _watch(client: Client, version: str, running: dict[str, float], count: int) -> None:
    async for change in client.watch(PODS, version, NAMESPACE):
        if change.object is not None and change.object.status.phase == "Running":
            running.setdefault(change.object.name, time.monotonic())
        if len(running) == count:
            return


async def _emptied(client: Client, *kinds: Resource[Any]) -> None:
    """Until nothing of *kinds* is left."""
    for kind in kinds:
        while (await client.list(kind, NAMESPACE)).items:  # noqa: ASYNC110  (what is waited for is elsewhere)
            await asyncio.sleep(0.5)


async def _in_flight(calls: Sequence[Awaitable[object]]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[object]) -> None:
        async with gate:
            await call

    await asyncio.gather(*map(one, calls))


def measure(made: dict[str, Cluster], count: int, rounds: int) -> list[Result]:
    """Both labs in turns; the table lines for *count* pods."""
    times: dict[str, list[list[float]]] = {name: [] for name in made}
    for number in range(rounds):
        order = sorted(made, reverse=bool(number % 2))
        for name in order:
            times[name].append(asyncio.run(start_and_end(made[name], count)))
            report.note(f"{count} pods, {name}: {times[name][-1][-1]:.1f} s")
            time.sleep(SETTLE_SECONDS)
    results = []
    for what, percent in (("half of them", 50), ("all of them", 100)):
        ours, baseline = (_typical(times[name], percent) for name in LABS)
        name = f"{count} pods, {what} running [s]"
        results.append(report.compare(name, ours, baseline, TARGET, Better.LOWER))
    return results


def _typical(rounds: list[list[float]], percent: float) -> float:
    return report.median([report.percentile(times, percent) for times in rounds])


def main() -> None:
    """Measure and print."""
    options = report.parser(__doc__)
    options.add_argument("--pods", type=int, nargs="+", default=[20, 100], help="pods at once (20 100)")
    options.add_argument("--rounds", type=int, default=5, help="rounds of each (default 5)")
    options.add_argument("--nodes", type=int, default=2, help="nodes of each lab (default 2)")
    chosen = options.parse_args()
    with labs(chosen.nodes) as made:
        results = [line for count in chosen.pods for line in measure(made, count, chosen.rounds)]
    report.publish(__doc__.splitlines()[0], results, as_json=chosen.json)


if __name__ == "__main__":
    main()
