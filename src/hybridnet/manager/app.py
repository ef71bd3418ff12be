"""The manager process: informers always, controllers while it leads.

Every manager keeps its memory warm; the one that holds the lease runs the controllers. The lease only keeps
two managers from doing the same work: correctness rests on compare-and-swap of blocks, so two that both
believe to lead (a paused process, a partition, ``--no-leader-election``) never give one address twice.
"""

import asyncio
import contextlib
import signal
from pathlib import Path

import structlog
from msgspec import Struct

from hybridnet.ipam.errors import InvalidRequest
from hybridnet.ipam.selection import Defaults, parse_family, parse_type
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.election import LeaderElector
from hybridnet.kube.errors import ConfigError
from hybridnet.kube.events import EventRecorder
from hybridnet.manager.cluster import Cluster
from hybridnet.manager.leader import Leader

log = structlog.get_logger(__name__)

__all__ = ["ConfigError", "ManagerConfig", "configure", "run", "serve"]

LEASE = "hybridnet-manager-election"
LAST_EVENTS_S = 2.0


class ManagerConfig(Struct, frozen=True, kw_only=True):
    """How a manager runs. *namespace* holds the lease, *identity* names this process in it."""

    kubeconfig: Path | None = None
    namespace: str = "kube-system"
    identity: str
    defaults: Defaults = Defaults()
    leader_election: bool = True


def configure(
    *,
    kubeconfig: Path | None,
    namespace: str,
    identity: str,
    network_type: str,
    ip_family: str,
    leader_election: bool,
) -> ManagerConfig:
    """A configuration from texts as an operator writes them. ConfigError when one is not understood."""
    try:
        defaults = Defaults(parse_type(network_type), parse_family(ip_family))
    except InvalidRequest as error:
        raise ConfigError(f"bad default: {error}") from None
    return ManagerConfig(
        kubeconfig=kubeconfig,
        namespace=namespace,
        identity=identity,
        defaults=defaults,
        leader_election=leader_election,
    )


async def run(config: ManagerConfig) -> None:
    """Run until SIGTERM or SIGINT; the lease is given back on the way out.

    An API server that is not there is waited for. ConfigError when there is no usable kubeconfig.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Client(load_config(config.kubeconfig)) as client:
        serving = asyncio.create_task(serve(client, config), name="manager")
        stopping = asyncio.create_task(stopped.wait(), name="signal")
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done():
            log.info("stopping", identity=config.identity)
            serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def serve(client: Client, config: ManagerConfig) -> None:
    """Run one manager on an open client until cancelled."""
    cluster = Cluster(client)
    events = EventRecorder(client, "hybridnet-manager")
    try:
        async with asyncio.TaskGroup() as group:
            for informer in cluster.informers:
                group.create_task(informer.run())
            group.create_task(_lead(client, cluster, events, config))
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_EVENTS_S):
                await events.flush()


async def _lead(client: Client, cluster: Cluster, events: EventRecorder, config: ManagerConfig) -> None:
    for informer in cluster.informers:
        await informer.wait_synced()
    cluster.refresh()

    async def lead() -> None:
        await Leader(client, cluster, events, config.defaults).run()

    if config.leader_election:
        elector = LeaderElector(client, LEASE, config.namespace, config.identity)
        await elector.run(lead)
    else:
        log.warning("leading without a lease", identity=config.identity)
        await lead()
