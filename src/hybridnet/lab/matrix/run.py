"""Ask every question of the matrix on a running lab, a bounded number at a time, and judge what was seen."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack

from msgspec import Struct

from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.matrix.capture import Capture
from hybridnet.lab.matrix.cells import NO_ROUTE, ROUTE, Cell, Endpoint, Kind, Protocol, Result
from hybridnet.lab.matrix.judge import Fabric, judge
from hybridnet.lab.matrix.probe import probe
from hybridnet.lab.matrix.responder import Responder
from hybridnet.model.address import Family, IPAddress

AT_ONCE = 48
"""Probes under way. Those of a broken network do nothing but wait."""
_SETTLE_SECONDS = 0.3
"""For the last frames to be read."""
_numbers = itertools.count(1)
"""Never the same twice in a process: what an earlier run still sends is not taken for this one's."""


class MatrixResult(Struct, frozen=True):
    """All cells, and whether the captures saw everything."""

    results: tuple[Result, ...]
    dropped: int
    """Frames that the capture lost: with any, a path may be wrong."""

    @property
    def ok(self) -> bool:
        """Whether everything is as expected and proven."""
        return not self.dropped and all(r.ok for r in self.results)


class Service(Struct, frozen=True):
    """A Service with one pod behind it."""

    addresses: tuple[IPAddress, ...]
    backend: Endpoint


def plan_cells(endpoints: Sequence[Endpoint], services: Sequence[Service]) -> list[Cell]:
    """All questions: every ordered pair of endpoints, in both families and three protocols.

    Not one pair for each pair of kinds: a fault of one node must show, whichever end is on it.
    """
    pairs = sorted(itertools.permutations(endpoints, 2), key=lambda p: (p[0].kind, p[1].kind))
    cells = []
    for sender, receiver in pairs:
        unknown = sender.kind is Kind.EXTERNAL and receiver.kind is Kind.OVERLAY
        for note in (NO_ROUTE, ROUTE) if unknown else ("",):
            cells += [Cell(sender, receiver, f, p, note) for f, p in _questions(sender, receiver)]
    clients = [e for e in endpoints if e.kind in (Kind.OVERLAY, Kind.UNDERLAY)]
    for client, service in itertools.product(clients, services):
        if client == service.backend:
            continue
        cells += [
            Cell(client, service.backend, Family(address.version), protocol, "service", address)
            for address in service.addresses
            for protocol in (Protocol.TCP, Protocol.UDP)
        ]
    return sorted(cells, key=lambda c: c.row)


def _questions(sender: Endpoint, receiver: Endpoint) -> Iterable[tuple[Family, Protocol]]:
    common = {a.version for a in sender.addresses} & {a.version for a in receiver.addresses}
    return itertools.product(sorted(Family(v) for v in common), Protocol)


async def run_cells(
    cells: Sequence[Cell], switch: str, fabric: Fabric, progress: Callable[[int, int], None]
) -> MatrixResult:
    """Probe all *cells*; *switch* is the path of the namespace whose ports are captured."""
    arrivals: dict[int, str] = {}
    errors: dict[int, str] = {}
    numbered = dict(zip(_numbers, cells, strict=False))
    receivers = {c.receiver.name: c.receiver for c in cells}
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int, cell: Cell) -> None:
        async with gate:
            errors[number] = await probe(cell, number)
            progress(len(errors), len(cells))

    with Namespace.open(switch) as opened, Capture(opened) as capture:
        async with AsyncExitStack() as stack:
            for endpoint in receivers.values():
                responder = Responder(endpoint, arrivals)
                stack.push_async_callback(responder.stop)
                await responder.start()
            await asyncio.gather(*(ask(number, cell) for number, cell in numbered.items()))
            await asyncio.sleep(_SETTLE_SECONDS)
    results = tuple(
        judge(cell, errors[n], arrivals.get(n, ""), capture.of(n), fabric) for n, cell in numbered.items()
    )
    return MatrixResult(results, capture.dropped)
