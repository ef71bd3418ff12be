"""The node process: what it watches, what each change does, and how it starts and stops.

Start: adopt what the kernel has, answer DEL at once, read the cluster, make the kernel as planned, answer ADD.
From then on each change is a key of one queue, worked off one at a time: the node, one peer, one pod, an audit.
A key that fails is tried again with a growing pause and holds up no other. Stop: close the sockets; the kernel
goes on forwarding.
"""

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

import structlog
from msgspec import Struct

from hybridnet.agent import observation
from hybridnet.agent.addresses import BY_POD, Addresses, index_by_pod
from hybridnet.agent.attachment import Attachments
from hybridnet.agent.dataplane import Dataplane, DataplaneError
from hybridnet.agent.devices import read_devices
from hybridnet.agent.reporter import Reporter
from hybridnet.agent.resolver import Resolver
from hybridnet.agent.sandbox import SandboxStore
from hybridnet.agent.server import CniServer
from hybridnet.kernel.errors import NftError
from hybridnet.kernel.monitor import DeviceChanged, Monitor, NeighbourMiss, Notice, RouteChanged
from hybridnet.kernel.netlink import Rtnl
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import ApiError
from hybridnet.kube.informer import Event, EventKind, Informer
from hybridnet.kube.queue import WorkQueue
from hybridnet.model import labels
from hybridnet.model.instance import IPInstance, NodeInfo
from hybridnet.model.meta import KubeObject
from hybridnet.model.network import NetworkMode
from hybridnet.model.resource import IPINSTANCES, NETWORKS, NODEINFOS, NODES, SUBNETS
from hybridnet.plan import layout
from hybridnet.plan.endpoint import Endpoint
from hybridnet.plan.state import PROTOCOL
from hybridnet.plan.view import Vtep

log = structlog.get_logger(__name__)

AUDIT_SECONDS = 60.0
DRIFT_SECONDS = 0.5
"""How long after a change by somebody else the audit runs; the changes meanwhile share it."""

SWITCH_SECONDS = 0.0005
"""How soon a thread that computes hands over to one that waits. The thread that writes to the kernel gives way at
each of its system calls, ten a pod; with Python's 5 ms it waited most of a burst of ADDs for the event loop."""

GONE_SECONDS = 2.0
"""How long an address is still served after its IPInstance has vanished."""

Key = tuple[str, str]
NODE: Key = ("node", "")
AUDIT: Key = ("audit", "")


class Config(Struct, frozen=True):
    """What the agent is told at start."""

    node: str
    nic: str
    kubeconfig: Path | None
    socket: Path
    state: Path
    address_timeout: float = 20.0
    """Seconds that ADD waits for addresses; the runtime's own limit is two minutes and it tries again."""


class Agent:
    """The node process."""

    def __init__(self, config: Config, client: Client) -> None:
        self._config = config
        node = config.node
        self._networks = Informer(client, NETWORKS)
        self._subnets = Informer(client, SUBNETS)
        self._node = Informer(client, NODES, field_selector=f"metadata.name={node}")
        self._infos = Informer(client, NODEINFOS)
        self._instances = Informer(
            client,
            IPINSTANCES,
            label_selector=f"{labels.NODE}={labels.label_value(node)}",
            indexes={BY_POD: index_by_pod},
        )
        self._queue: WorkQueue[Key] = WorkQueue()
        self._addresses = Addresses(self._instances)
        self._store = SandboxStore(config.state)
        self._dataplane = Dataplane(node, self._held)
        self._resolver = Resolver(client, node, self._dataplane.peer, self._dataplane.answer)
        self._reporter = Reporter(client, node)
        self._attachments = Attachments(
            node, self._addresses, self._store, self._dataplane, self._reporter.report, config.address_timeout
        )
        self._server = CniServer(config.socket, self._attachments, config.address_timeout)
        self._devices: frozenset[int] = frozenset()
        """Indexes of the devices that the plan builds on."""
        self._audit_timer: asyncio.TimerHandle | None = None
        self._watch()

    @property
    def _informers(self) -> tuple[Informer[KubeObject], ...]:
        return (self._networks, self._subnets, self._node, self._infos, self._instances)  # type: ignore[return-value]

    def _watch(self) -> None:
        for informer in (self._networks, self._subnets, self._node):
            informer.add_handler(lambda _: self._queue.add(NODE))
        self._infos.add_handler(self._on_info)
        self._instances.add_handler(self._on_instance)

    def _on_info(self, event: Event[NodeInfo]) -> None:
        name = event.object.name
        self._queue.add(NODE if name == self._config.node else ("peer", name))

    def _on_instance(self, event: Event[IPInstance]) -> None:
        key = "pod", f"{event.object.metadata.namespace}/{event.object.spec.binding.pod_name}"
        if event.kind is EventKind.DELETED:
            # The manager writes a record that was deleted under a running pod again: not a packet is lost then.
            asyncio.get_running_loop().call_later(GONE_SECONDS, self._queue.add, key)
        else:
            self._queue.add(key)

    def _held(self, endpoint: Endpoint) -> frozenset[str]:
        return self._addresses.held(endpoint.namespace, endpoint.pod, endpoint.uid)

    async def run(self) -> None:
        """Serve until cancelled."""
        monitor = Monitor(self._on_notice)
        await self._dataplane.start()
        await self._server.start()
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
            for informer in self._informers:
                await informer.wait_synced()
            await self._converge()
            self._server.set_ready()
            log.info("serving", node=self._config.node, pods=len(self._store.items()))
            tasks.create_task(self._reporter.run())
            tasks.create_task(self._queue.run_workers(1, self._reconcile))
            tasks.create_task(self._audit_regularly())
            monitor.start()

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, NeighbourMiss):
            if notice.index == self._dataplane.tunnel_index:
                self._resolver.miss(notice.address)
        elif isinstance(notice, DeviceChanged):
            if notice.gone:
                self._attachments.link_gone(notice.gone)
            if notice.index in self._devices or not self._devices:
                self._queue.add(NODE)
            elif notice.index == self._dataplane.tunnel_index:
                self._schedule_audit()
        elif isinstance(notice, RouteChanged):
            if self._is_drift(notice):
                self._schedule_audit()
        else:
            self._schedule_audit()

    def _is_drift(self, notice: RouteChanged) -> bool:
        """Somebody else took a rule or route of ours away (a pod's own route goes with its device)."""
        if not notice.removed or notice.protocol != PROTOCOL or notice.port == self._dataplane.port:
            return False
        return notice.port != 0 or notice.table != layout.TABLE_LOCAL

    def _schedule_audit(self) -> None:
        """At once, but at most one a second."""
        loop = asyncio.get_running_loop()
        if self._audit_timer is None or self._audit_timer.when() < loop.time():
            self._audit_timer = loop.call_later(DRIFT_SECONDS, self._queue.add, AUDIT)

    async def stop(self) -> None:
        """Close what is open. Nothing is removed from the kernel."""
        await self._server.stop()
        self._attachments.close()
        self._dataplane.close()

    async def _converge(self) -> None:
        """The first pass: everything once, then what nobody wants any more is pruned.

        What fails is tried again in the background: what could be made is good enough to serve pods with.
        """
        await self._attachments.sweep()
        for endpoint in self._store.items():
            self._dataplane.learn_endpoint(endpoint)
        for info in self._infos.items():
            self._learn_peer(info)
        try:
            await self._plan_node()
        except (ApiError, DataplaneError, NftError) as error:
            log.error("node not as planned, trying again", error=str(error))
            self._queue.add(NODE)
        await self._dataplane.prune()

    async def _reconcile(self, key: Key) -> None:
        kind, name = key
        if kind == "node":
            await self._plan_node()
            await self._dataplane.prune()
        elif kind == "peer":
            await self._plan_peer(name)
        elif kind == "pod":
            await self._dataplane.refresh_pod(*name.split("/", 1))
            self._attachments.report_again(*name.split("/", 1))
        else:
            await self._attachments.sweep()
            await self._dataplane.audit()

    async def _plan_node(self) -> None:
        node = self._node.get(self._config.node)
        if node is None:
            log.warning("this node's Node object is not there", node=self._config.node)
            return
        bridges = {
            n.spec.config.bridge
            for n in self._networks.items()
            if n.spec.config and n.spec.mode == NetworkMode.BRIDGE and n.spec.config.bridge
        }
        with Rtnl() as rtnl:
            nic, existing, self._devices = read_devices(rtnl, self._config.nic, bridges)
        view = observation.observe_node(
            node,
            self._networks.items(),
            self._subnets.items(),
            nic,
            existing,
            observation.host_families(),
        )
        plan = await self._dataplane.set_node(view)
        own = self._infos.get(self._config.node)
        await self._reporter.publish(node, own, view.vtep, plan.problems)

    async def _plan_peer(self, name: str) -> None:
        info = self._infos.get(name)
        vtep = self._learn_peer(info) if info is not None else None
        if vtep is None:
            self._resolver.forget_node(name)
            await self._dataplane.remove_peer(name)
        else:
            await self._dataplane.set_peer(vtep)

    def _learn_peer(self, info: NodeInfo) -> Vtep | None:
        vtep = observation.peer_vtep(info) if info.name != self._config.node else None
        if vtep is not None:
            self._resolver.set_node(vtep.node, vtep.local_addresses)
            self._dataplane.learn_peer(vtep)
        return vtep

    async def _audit_regularly(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            self._queue.add(AUDIT)


async def serve(config: Config) -> None:
    """Run an agent until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Client(load_config(config.kubeconfig)) as client:
        agent = Agent(config, client)
        running = loop.create_task(agent.run())
        stopping = loop.create_task(stopped.wait())
        try:
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, stopping):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await agent.stop()


def run(config: Config) -> None:
    """Run an agent until SIGTERM or SIGINT; the caller has configured logging."""
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(serve(config))
