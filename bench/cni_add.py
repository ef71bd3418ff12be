"""ADD and DEL of a pod's interface, from the start of the CNI executable to its end, in milliseconds.

Ours: the static executable, a real agent, a real API server; the IPInstances are there as the manager writes them.
Baseline: Debian's bridge plugin with host-local, in the same node's namespace. Both take turns, round after round,
each with fresh pods whose namespaces were made before the clock starts.

The baseline runs with ``hairpinMode``, as clusters have it: the plugin then leaves duplicate address detection
out, for which it would wait one to two seconds for each dual stack pod.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

import cni_world
import report
import wires
from cni_calls import Calls, Plugin, Pod
from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.address import Family
from report import Better, Result

TARGET = 0.25
SETTLE_SECONDS = 0.3
"""After each batch: what was started in the background must not be paid by the other side."""


class Case(Struct, frozen=True):
    """One comparison."""

    network: str
    families: tuple[Family, ...]
    parallel: int

    @property
    def name(self) -> str:
        """As the table shows it."""
        stack = "dual stack" if len(self.families) > 1 else "IPv4"
        return f"{self.network} {stack}, {self.parallel} at once"


class Batch(Struct, frozen=True):
    """Times of one side, in milliseconds."""

    add: list[float]
    delete: list[float]


def cases(parallel: Sequence[int]) -> list[Case]:
    return [
        Case(network, families, count)
        for network in ("overlay", "underlay")
        for families in ((Family.V4,), (Family.V4, Family.V6))
        for count in parallel
    ]


def measure(case: Case, calls: Calls, plugins: tuple[Plugin, Plugin], rounds: int, pods: int) -> list[Result]:
    """Run *rounds* of both sides; the table lines of *case*."""
    ours, baseline = plugins
    names = cni_world.pod_names(case.network, case.families, pods)
    mine, theirs = Batch([], []), Batch([], [])
    for number in range(rounds):
        with _pods(names, f"b{number}") as first, _pods(names, f"o{number}") as second:
            sides = [(baseline, first, theirs), (ours, second, mine)]
            for plugin, batch, times in sides if number % 2 else reversed(sides):
                _side(case, calls, plugin, batch, times)
        time.sleep(SETTLE_SECONDS)
    return [
        report.compare(
            f"{verb} {case.name}, p{percent} [ms]",
            report.percentile(own, percent),
            report.percentile(other, percent),
            TARGET,
            Better.LOWER,
        )
        for verb, own, other in (("ADD", mine.add, theirs.add), ("DEL", mine.delete, theirs.delete))
        for percent in (50, 99)
    ]


def _side(case: Case, calls: Calls, plugin: Plugin, pods: list[Pod], into: Batch) -> None:
    into.add.extend(calls.add(plugin, pods, case.parallel))
    time.sleep(SETTLE_SECONDS)
    into.delete.extend(calls.delete(plugin, pods, case.parallel))
    time.sleep(SETTLE_SECONDS)


@contextlib.contextmanager
def _pods(names: list[str], tag: str) -> Iterator[list[Pod]]:
    """Pods with namespaces of their own, as after the runtime has made the sandbox."""
    made: dict[str, Pod] = {}
    try:
        for name in names:
            role = f"{tag}-{name}"
            path = wires.make(role)
            made[role] = Pod(name, cni_world.uid_of(name), cni_world.digest(role), path)
        yield list(made.values())
    finally:
        for role in made:
            wires.remove(role)


def _run(rounds: int, pods: int, parallel: Sequence[int]) -> list[Result]:
    """Everything, on the thread that is inside the node's namespace."""
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory(prefix="hybridnet-bench-", dir="/run") as name,
        ControlPlane.local() as plane,
    ):
        folder = Path(name)
        report.note("control plane is up")
        asyncio.run(cni_world.prepare(plane, pods))
        with cni_world.agent(plane, folder):
            report.note("agent serves")
            for case in cases(parallel):
                begin = time.monotonic()
                plugins = cni_world.ours(folder), cni_world.bridge(folder, case.families)
                results += measure(case, Calls(folder), plugins, rounds, pods)
                report.note(f"{case.name}: {time.monotonic() - begin:.0f} s")
    return results


def main() -> None:
    """Measure and print."""
    options = report.parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="rounds of each case (default 5)")
    options.add_argument("--pods", type=int, default=32, help="pods in a round (default 32)")
    options.add_argument("--parallel", type=int, nargs="+", default=[1, 16], help="calls at once (1 16)")
    chosen = options.parse_args()
    with wires.switched(["node1"]), Namespace.open(wires.path_of("node1")) as node:
        results = node.run(lambda: _run(chosen.rounds, chosen.pods, chosen.parallel))
    report.publish(__doc__.splitlines()[0], results, as_json=chosen.json)


if __name__ == "__main__":
    main()
