"""One term of leadership: the controllers, their queues, and what wakes them.

A term begins with a full round over all pods and records and ends by cancelling everything; nothing in it
survives. The next leader starts from what the API server holds.
"""

import asyncio

import structlog

from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.selection import Defaults
from hybridnet.kube.client import Client
from hybridnet.kube.events import EventRecorder
from hybridnet.kube.informer import Event, EventKind
from hybridnet.kube.queue import WorkQueue
from hybridnet.manager.allocator import Allocator
from hybridnet.manager.audit import Audit
from hybridnet.manager.binding import Recorder
from hybridnet.manager.blocks import BlockStore
from hybridnet.manager.cluster import Cluster
from hybridnet.manager.pod_state import wants_address
from hybridnet.manager.pods import PodController
from hybridnet.manager.release import Owner, Releaser
from hybridnet.manager.status import StatusWriter
from hybridnet.manager.waiters import PodKey, Waiters
from hybridnet.model.core import Pod
from hybridnet.model.instance import IPInstance
from hybridnet.model.network import Network, Subnet

log = structlog.get_logger(__name__)

WORKERS = 256
"""Objects in work at once: the more wait for the same block, the more share one update of it."""


class Leader:
    """The controllers of one term; an Observer of the cluster."""

    def __init__(self, client: Client, cluster: Cluster, events: EventRecorder, defaults: Defaults) -> None:
        self._cluster = cluster
        self._pods: WorkQueue[PodKey] = WorkQueue()
        self._owners: WorkQueue[Owner] = WorkQueue()
        self._instances: WorkQueue[tuple[str, str]] = WorkQueue()
        self._waiters = Waiters(self._pods.add)
        self._blocks = BlockStore(client, cluster.book)
        allocator = Allocator(cluster.book, self._blocks, cluster.instances_of)
        self._releaser = Releaser(client, cluster, allocator, events, self._instances.add)
        self._controller = PodController(
            cluster,
            allocator,
            Recorder(client, cluster.book, cluster.macs.assign),
            self._releaser,
            self._waiters,
            events,
            defaults,
        )
        self._status = StatusWriter(client, cluster)
        self._audit = Audit(
            client,
            cluster,
            self._blocks,
            allocator,
            self._pods.add,
            self._owners.add,
            self._instances.add,
            self._waiters.wake_heads,
        )

    async def run(self) -> None:
        """Lead until cancelled."""
        self._cluster.observer = self
        self._cluster.refresh()
        log.info("leading", pods=len(self._cluster.pods.items()), subnets=len(self._cluster.book.pools))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pods.run_workers(WORKERS, self._controller.reconcile))
                group.create_task(self._owners.run_workers(WORKERS, self._releaser.release_owner))
                group.create_task(self._instances.run_workers(WORKERS, self._releaser.release_instance))
                group.create_task(self._status.run())
                group.create_task(self._audit.run())
        finally:
            self._cluster.observer = None
            self._cluster.book.rest()
            await self._blocks.stop()
            log.info("leading no more")

    def pod_changed(self, event: Event[Pod]) -> None:
        """Queue what the pod needs now, and what its predecessor of the same name leaves."""
        pod, old = event.object, event.old
        if event.kind is EventKind.DELETED:
            self._released(pod)
        elif old and old.metadata.uid != pod.metadata.uid:
            self._released(old)
        if event.kind is EventKind.DELETED or pod.key in self._waiters or _matters(event):
            self._pods.add(pod.key)

    def instance_changed(self, event: Event[IPInstance]) -> None:
        """Queue the end of a terminating record; look after pods that lost one or have too many."""
        instance = event.object
        binding = instance.spec.binding
        if event.kind is EventKind.DELETED:
            self._pods.add((instance.metadata.namespace, binding.pod_name))
        elif instance.metadata.terminating:
            self._instances.add(instance.key)
        elif event.kind is EventKind.ADDED and self._is_second(instance):
            self._owners.add(Owner(instance.metadata.namespace, binding.pod_name, binding.pod_uid))

    def topology_changed(self) -> None:
        """Everyone's situation may be different."""
        self._status.everything_changed()
        self._waiters.wake_everyone()

    def status_seen(self, obj: Network | Subnet) -> None:
        """Check that what is written there is what we would write."""
        if isinstance(obj, Network):
            self._status.network_changed(obj.name)
        else:
            self._status.subnet_changed(obj.name)

    def node_changed(self, name: str) -> None:
        """Memberships may be different."""
        self._status.nodes_changed()
        self._waiters.wake_node(name)

    def namespace_changed(self, name: str) -> None:
        """Defaults of its pods may be different."""
        self._waiters.wake_namespace(name)

    def pool_changed(self, pool: SubnetPool, freed: bool) -> None:
        """Counters changed; a freed address helps a waiting pod."""
        self._status.subnet_changed(pool.name)
        self._status.network_changed(pool.network)
        if freed:
            self._waiters.address_freed(pool.network, pool.range.family, pool.name, private=pool.private)

    def _released(self, pod: Pod) -> None:
        self._owners.add(Owner(pod.metadata.namespace, pod.name, pod.metadata.uid))

    def _is_second(self, instance: IPInstance) -> bool:
        versions = [
            other.spec.address.version
            for other in self._cluster.instances_of(instance.spec.binding.pod_uid)
            if not other.metadata.terminating
        ]
        return versions.count(instance.spec.address.version) > 1


def _matters(event: Event[Pod]) -> bool:
    """Whether a pod's change can concern its addresses: the kubelet reports many that do not."""
    pod, old = event.object, event.old
    if event.kind is EventKind.ADDED or old is None or old.metadata.uid != pod.metadata.uid:
        return True
    return wants_address(old) != wants_address(pod)
