"""Serves pods: a scheduled pod without address gets one, a finished one gives it back.

Reconciling is idempotent and cheap when there is nothing to do: a pod whose IPInstances are complete is not
looked at further, so a namespace annotation that breaks later does not disturb running pods. What cannot be
served becomes an event on the pod with the reason and the next step, and waits for what helps it.
"""

import structlog
from msgspec import Struct

from hybridnet.ipam.errors import IPAMError, NoAddress, SelectionError, UnknownNamespace
from hybridnet.ipam.selection import Choice, Defaults, IPFamily, choose, read_request
from hybridnet.kube.errors import Forbidden, Invalid
from hybridnet.kube.events import EventRecorder
from hybridnet.manager.allocator import Allocator
from hybridnet.manager.binding import NameTaken, Recorder
from hybridnet.manager.cluster import Cluster
from hybridnet.manager.pod_state import finished, wants_address
from hybridnet.manager.release import Owner, Releaser
from hybridnet.manager.waiters import PodKey, Waiters
from hybridnet.model import labels
from hybridnet.model.core import ObjectReference, Pod
from hybridnet.model.instance import IPInstance
from hybridnet.model.resource import PODS

log = structlog.get_logger(__name__)


class PodController(Struct, frozen=True):
    """Brings every scheduled pod to its addresses."""

    cluster: Cluster
    allocator: Allocator
    recorder: Recorder
    releaser: Releaser
    waiters: Waiters
    events: EventRecorder
    defaults: Defaults

    async def reconcile(self, key: PodKey) -> None:
        """Serve the pod ``(namespace, name)``. Raises what a later attempt may overcome."""
        namespace, name = key
        pod = self.cluster.pods.get(name, namespace)
        if pod is None or not wants_address(pod):
            self.waiters.leave(key)
            if pod is not None and finished(pod):
                await self.releaser.release_owner(Owner(*pod.key, pod.metadata.uid))
            return
        try:
            await self._serve(pod)
        except UnknownNamespace:
            self.waiters.wait(pod.key, None, pod.spec.node_name, "")
        except IPAMError as error:
            self._wait(pod, error)
        except NameTaken as error:
            await self.releaser.release_instance(error.instance.key)
            raise
        except (Forbidden, Invalid) as error:
            self._tell(pod, f"the API server refused to store the address: {error}; retrying")
            raise

    async def _serve(self, pod: Pod) -> None:
        records = self.cluster.records_of(pod)
        if complete(records):
            self.waiters.leave(pod.key)
            return
        choice = self._choose(pod, records)
        try:
            grants = await self.allocator.allocate(pod.metadata.uid, pod.spec.node_name, choice)
            written = await self.recorder.record(pod, choice.family, grants)
        finally:
            if self._has_left(pod):
                await self.releaser.release_owner(Owner(*pod.key, pod.metadata.uid))
        self.waiters.leave(pod.key)
        if written:
            addresses = ", ".join(instance.spec.address.ip for instance in written)
            message = f"{addresses} of network {choice.network}"
            self.events.event(reference(pod), "Normal", "IPAllocationSucceed", message)

    def _has_left(self, pod: Pod) -> bool:
        """Whether the pod went or ended while it was served: then nobody else will take its address back."""
        now = self.cluster.pods.get(pod.name, pod.metadata.namespace)
        return now is None or now.metadata.uid != pod.metadata.uid or finished(now)

    def _choose(self, pod: Pod, records: list[IPInstance]) -> Choice:
        """What the pod gets; a pod that is served in part gets the rest of the same network."""
        if not records:
            return self._choose_freely(pod)
        family, network = recorded_family(records), records[0].spec.network
        try:
            choice = self._choose_freely(pod)
        except SelectionError as error:
            log.info("pod is completed as it was begun", pod=pod.key, reason=str(error))
        else:
            if (choice.network, choice.family) == (network, family):
                return choice
        return Choice(network, family, (None,) * len(family.families))

    def _choose_freely(self, pod: Pod) -> Choice:
        namespace = self.cluster.namespaces.get(pod.metadata.namespace)
        if namespace is None:
            raise UnknownNamespace(f"namespace {pod.metadata.namespace} is not known yet")
        return choose(
            read_request(pod.metadata, namespace.metadata),
            self.defaults,
            self.cluster.book.judgement,
            pod.spec.node_name,
            self.cluster.node_labels,
        )

    def _wait(self, pod: Pod, error: IPAMError) -> None:
        line = (error.network, error.family, error.subnet) if isinstance(error, NoAddress) else None
        if self.waiters.wait(pod.key, line, pod.spec.node_name, str(error)):
            self._tell(pod, str(error))
        if line and self.cluster.book.available(*line):
            self.waiters.wake_next(line)

    def _tell(self, pod: Pod, message: str) -> None:
        log.info("pod not served", pod=f"{pod.metadata.namespace}/{pod.name}", reason=message)
        self.events.event(reference(pod), "Warning", "IPAllocationFail", message)


def reference(pod: Pod) -> ObjectReference:
    """The pod as the object of an event."""
    return ObjectReference(
        api_version=PODS.api_version,
        kind=PODS.kind,
        namespace=pod.metadata.namespace,
        name=pod.name,
        uid=pod.metadata.uid,
    )


def recorded_family(records: list[IPInstance]) -> IPFamily:
    """The families that a pod's records were made for: their label, or (records of the original have none) the
    families that are there."""
    for record in records:
        label = record.metadata.labels.get(labels.IP_FAMILY, "")
        if label in tuple(IPFamily):
            return IPFamily(label)
    versions = {record.spec.address.version for record in records}
    if versions == {"4", "6"}:
        return IPFamily.DUAL_STACK
    return IPFamily.V6_ONLY if versions == {"6"} else IPFamily.V4_ONLY


def complete(records: list[IPInstance]) -> bool:
    """Whether a pod has an address of each family that it was given addresses for."""
    if not records:
        return False
    have = {record.spec.address.version for record in records}
    return have >= {str(int(family)) for family in recorded_family(records).families}
