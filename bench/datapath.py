"""Throughput, request/response rate and CPU of pod to pod traffic between two nodes.

Ours: pods wired by the agent's code. Baseline: the same pods wired by hand (VXLAN for the overlay, routes for the
underlay) without packet filter, policy rules or connection tracking. The same tool measures both in turns, round
after round; the best of the rounds counts: short rounds and many of them find the moments when nothing else runs.
CPU is that of sender and receiver, in whose context the kernel forwards.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

import datapath_world as world
import report
import traffic
import wires
from hybridnet.cli.logs import configure_logging
from hybridnet.model.address import Family
from report import Better, Result
from traffic import Sample

TARGET = 0.98
KINDS = ("stream", "tcp", "udp")


class Case(Struct, frozen=True):
    """One path and one kind of traffic."""

    network: str
    family: Family
    kind: str

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.network} IPv{int(self.family)}"


def cases(networks: list[str], kinds: list[str]) -> list[Case]:
    return [Case(network, family, kind) for network in networks for family in Family for kind in kinds]


def measure(case: Case, program: Path, milliseconds: int, rounds: int) -> list[Result]:
    """Both sides in turns; the table lines of *case*."""
    ours: list[Sample] = []
    baseline: list[Sample] = []
    sides = [(world.BASELINE, baseline), (world.OURS, ours)]
    for number in range(rounds):
        for nodes, samples in sides if number % 2 else reversed(sides):
            source, target = world.sites(nodes, case.network)
            address = target.address(case.family)
            samples.append(traffic.measure(program, source.role, case.kind, address, milliseconds))
    return list(_compare(case, ours, baseline))


def _compare(case: Case, ours: list[Sample], baseline: list[Sample]) -> Iterator[Result]:
    rates = max(s.rate for s in ours), max(s.rate for s in baseline)
    costs = min(s.cost for s in ours), min(s.cost for s in baseline)
    if case.kind == "stream":
        names, scale = ("throughput [Gbit/s]", "CPU [ns/byte]"), (8e-9, 1e9)
    else:
        kind = case.kind.upper()
        names, scale = (f"{kind} questions and answers [1/s]", f"CPU of a {kind} answer [us]"), (1, 1e6)
    for name, (own, other), factor, target, better in (
        (names[0], rates, scale[0], TARGET, Better.HIGHER),
        (names[1], costs, scale[1], report.round_to(1 / TARGET, 3), Better.LOWER),
    ):
        yield report.compare(f"{case.name}: {name}", own * factor, other * factor, target, better)


def main() -> None:
    """Measure and print."""
    options = report.parser(__doc__)
    options.add_argument("--rounds", type=int, default=25, help="rounds of each case (default 25)")
    options.add_argument("--milliseconds", type=int, default=100, help="of one measurement (default 100)")
    options.add_argument("--network", nargs="+", choices=world.NETWORKS, default=list(world.NETWORKS))
    options.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = options.parse_args()
    configure_logging(logging.ERROR)
    results: list[Result] = []
    with ExitStack() as stack:
        program = stack.enter_context(traffic.compiled())
        stack.enter_context(wires.switched(world.NODES, mtu=world.MTU))
        world.build()
        for nodes in (world.OURS, world.BASELINE):
            for network in chosen.network:
                stack.enter_context(traffic.served(program, world.sites(nodes, network)[1].role))
        for case in cases(chosen.network, chosen.kind):
            results += measure(case, program, chosen.milliseconds, chosen.rounds)
            report.note(f"{case.name} {case.kind}: done")
    report.publish(__doc__.splitlines()[0], results, as_json=chosen.json)


if __name__ == "__main__":
    main()
