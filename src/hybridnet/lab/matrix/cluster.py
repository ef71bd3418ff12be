"""The matrix on a lab: probed among its pods, nodes and the external host.

The outside gets a route to the overlay pods for the cells that need it, and loses it again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from hybridnet.lab.cluster import Cluster
from hybridnet.lab.matrix.cells import ROUTE, Cell
from hybridnet.lab.matrix.judge import Fabric
from hybridnet.lab.matrix.pods import participants
from hybridnet.lab.matrix.probe import probe
from hybridnet.lab.matrix.responder import Responder
from hybridnet.lab.matrix.run import MatrixResult, plan_cells, run_cells
from hybridnet.lab.processes import Place, run
from hybridnet.lab.topology import OVERLAY_ID, VXLAN_PORT

SERVICES_SECONDS = 15.0
"""How long kube-proxy may take to know new Services; later the matrix shows them as they are."""

Progress = Callable[[str], None]


def run_matrix(
    cluster: Cluster,
    progress: Progress = lambda _: None,
    *,
    keep: bool = False,
    before_probing: Callable[[], None] = lambda: None,
) -> MatrixResult:
    """The whole matrix of *cluster*. NotReady when its pods do not start.

    *keep* leaves the pods. *before_probing* is called when the pods run: a test breaks something there.
    """
    progress("pods and services")
    with participants(cluster, keep=keep) as (endpoints, services):
        cells = plan_cells(endpoints, services)
        asyncio.run(_services_answer([c for c in cells if c.service is not None]))
        before_probing()
        return asyncio.run(_probe(cluster, cells, progress))


async def _probe(cluster: Cluster, cells: list[Cell], progress: Progress) -> MatrixResult:
    topology = cluster.topology
    nodes = {n: tuple(i.ip for i in topology.node(n).addresses) for n in topology.node_names}
    fabric = Fabric(OVERLAY_ID, VXLAN_PORT, nodes)
    switch = str(topology.namespace_path("switch"))

    def tell(done: int, total: int) -> None:
        progress(f"{done} of {total} cells")

    first = await run_cells([c for c in cells if c.note != ROUTE], switch, fabric, tell)
    routed = [c for c in cells if c.note == ROUTE]
    with _outside_route(cluster, routed):
        second = await run_cells(routed, switch, fabric, tell)
    return MatrixResult(first.results + second.results, first.dropped + second.dropped)


async def _services_answer(cells: list[Cell]) -> None:
    """Wait until kube-proxy has programmed the Services, so that the matrix does not judge its delay."""
    async with AsyncExitStack() as stack:
        for endpoint in {c.receiver.name: c.receiver for c in cells}.values():
            responder = Responder(endpoint, {})
            stack.push_async_callback(responder.stop)
            await responder.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVICES_SECONDS):
                for cell in cells:
                    error = await probe(cell, 0)
                    while error:
                        await asyncio.sleep(0.3)
                        error = await probe(cell, 0)


@contextmanager
def _outside_route(cluster: Cluster, cells: list[Cell]) -> Iterator[None]:
    """The router knows the nodes of the overlay receivers of *cells*."""
    place = Place(network=cluster.topology.namespace_path("router"))
    routes = []
    for cell in {c.target: c for c in cells}.values():
        node = cluster.topology.node(cell.receiver.node)
        via = next(str(i.ip) for i in node.addresses if i.version == cell.target.version)
        routes.append((str(cell.target), via))
    try:
        for target, via in routes:
            run(["ip", "route", "replace", target, "via", via], place)
        yield
    finally:
        for target, via in routes:
            run(["ip", "route", "del", target, "via", via], place, check=False)
