"""Takes addresses back: from pods that are gone or finished, and when an IPInstance is deleted.

Order: the IPInstance is deleted (agents see it), its claim is released by compare-and-swap, and only then is
our finalizer removed. A claim is released only when its UID is the one in the IPInstance and that pod is
certainly gone or finished: seen to be deleted, or asked for at the API server, because a cache may lag. So a
forged IPInstance frees nobody's address, and one that was deleted under a running pod is written again with
the same address.
"""

from collections.abc import Callable
from typing import NamedTuple

import structlog
from msgspec import Struct

from hybridnet.ipam.range import address_at
from hybridnet.kube.client import Client
from hybridnet.kube.errors import Conflict, NotFound
from hybridnet.kube.events import EventRecorder
from hybridnet.manager.allocator import Allocator
from hybridnet.manager.cluster import Cluster, address_of, belongs
from hybridnet.manager.pod_state import finished
from hybridnet.model import labels
from hybridnet.model.core import ObjectReference, Pod
from hybridnet.model.instance import IPInstance
from hybridnet.model.resource import IPINSTANCES, PODS

log = structlog.get_logger(__name__)


class Owner(NamedTuple):
    """A pod by everything that identifies it."""

    namespace: str
    name: str
    uid: str


class Releaser(Struct, frozen=True):
    """Frees what nobody uses any more. *retry_instance* and *retry_owner* queue further work."""

    client: Client
    cluster: Cluster
    allocator: Allocator
    events: EventRecorder
    release_soon: Callable[[tuple[str, str]], None]

    async def release_owner(self, owner: Owner) -> None:
        """Give back everything of a pod that is gone or finished; of a living one only what is surplus."""
        instances = self.cluster.instances_of(owner.uid)
        if not instances and not self.cluster.book.claims_of(owner.uid):
            return
        if not await self.is_gone(owner):
            await self._remove_surplus(owner)
            return
        mine = [i for i in instances if i.metadata.namespace == owner.namespace and made_for_pod(i)]
        for instance in mine:
            await self._delete(instance)
        await self.allocator.release_unrecorded(owner.uid)
        if living := [i for i in mine if not i.metadata.terminating]:
            self._tell_released(owner, living)

    async def release_instance(self, key: tuple[str, str]) -> None:
        """Finish the deletion of the IPInstance ``(namespace, name)``, if it is being deleted."""
        namespace, name = key
        instance = self.cluster.instances.get(name, namespace)
        if instance is None or not instance.metadata.terminating:
            return
        if labels.FINALIZER in instance.metadata.finalizers:
            await self._free(instance)
            await self._remove_finalizer(instance)

    async def is_gone(self, owner: Owner) -> bool:
        """Whether a pod is certainly gone or finished; asks the API server when the cache cannot tell."""
        if owner.uid in self.cluster.gone:
            return True
        pod = self.cluster.pod_by_uid(owner.uid)
        if pod is None:
            pod = await self._read_pod(owner)
        return pod is None or pod.metadata.uid != owner.uid or finished(pod)

    async def _read_pod(self, owner: Owner) -> Pod | None:
        try:
            return await self.client.get(PODS, owner.name, owner.namespace)
        except NotFound:
            return None

    async def _delete(self, instance: IPInstance, version: str | None = None) -> None:
        """Ask for deletion; with *version* only while the object is unchanged."""
        if instance.metadata.terminating:
            self.release_soon(instance.key)
            return
        try:
            await self.client.delete(
                IPINSTANCES,
                instance.name,
                instance.metadata.namespace,
                uid=instance.metadata.uid,
                resource_version=version,
            )
        except (NotFound, Conflict):
            log.debug("instance changed or gone before its deletion", instance=instance.name)

    async def _remove_surplus(self, owner: Owner) -> None:
        """Of several records of one family keep the senior one and those that an agent uses."""
        pod = self.cluster.pod_by_uid(owner.uid)
        for version in ("4", "6"):
            records = self.cluster.records_of(pod) if pod else []
            of_family = sorted(
                (r for r in records if r.spec.address.version == version), key=lambda r: r.seniority
            )
            for record in of_family[1:]:
                if not record.reported:
                    log.info("second address of a pod is taken back", owner=owner, instance=record.name)
                    await self._delete(record, record.metadata.resource_version)

    async def _free(self, instance: IPInstance) -> None:
        """Release the claim behind a terminating IPInstance if it is this pod's to give back."""
        place, binding = address_of(instance), instance.spec.binding
        if place is None:
            log.warning("instance without a readable address", instance=instance.key)
            return
        claim = self.cluster.book.ledgers[place[0]].holder(place[1])
        if claim is None:
            return
        if claim.uid != binding.pod_uid:
            self._tell_not_owned(instance, claim.uid)
            return
        owner = Owner(instance.metadata.namespace, binding.pod_name, binding.pod_uid)
        if await self.is_gone(owner) or self._is_surplus(instance):
            await self.allocator.release(*place, binding.pod_uid)
        else:
            log.info("pod still runs, its address stays", instance=instance.key, pod=binding.pod_name)

    def _is_surplus(self, instance: IPInstance) -> bool:
        """Whether the pod has another record of that family, which it keeps."""
        pod = self.cluster.pod_by_uid(instance.spec.binding.pod_uid)
        if pod is None or not belongs(instance, pod):
            return False
        version = instance.spec.address.version
        return any(
            r.name != instance.name and r.spec.address.version == version
            for r in self.cluster.records_of(pod)
        )

    async def _remove_finalizer(self, instance: IPInstance) -> None:
        """Remove our finalizer and nobody else's."""
        while True:
            others = [f for f in instance.metadata.finalizers if f != labels.FINALIZER]
            version = instance.metadata.resource_version
            patch = {"metadata": {"resourceVersion": version, "finalizers": others or None}}
            try:
                await self.client.patch(IPINSTANCES, instance.name, patch, instance.metadata.namespace)
            except Conflict:
                uid = instance.metadata.uid
                instance = await self.client.get(IPINSTANCES, instance.name, instance.metadata.namespace)
                if instance.metadata.uid != uid:
                    return
            except NotFound:
                return
            else:
                return

    def _tell_released(self, owner: Owner, released: list[IPInstance]) -> None:
        pod = self.cluster.pod_by_uid(owner.uid)
        if pod is None:
            return
        addresses = ", ".join(instance.spec.address.ip for instance in released)
        target = ObjectReference(
            api_version=PODS.api_version,
            kind=PODS.kind,
            namespace=owner.namespace,
            name=owner.name,
            uid=owner.uid,
        )
        self.events.event(
            target, "Normal", "IPReleaseSucceed", f"{addresses} given back: the pod has finished"
        )

    def _tell_not_owned(self, instance: IPInstance, holder: str) -> None:
        place = address_of(instance)
        address = str(address_at(*place)) if place else instance.name
        log.warning(
            "instance does not own its address", instance=instance.key, address=address, holder=holder
        )
        target = ObjectReference(
            api_version=IPINSTANCES.api_version,
            kind=IPINSTANCES.kind,
            namespace=instance.metadata.namespace,
            name=instance.name,
            uid=instance.metadata.uid,
        )
        message = (
            f"{address} belongs to the pod with UID {holder}, which keeps it; find out who made this object"
        )
        self.events.event(target, "Warning", "AddressNotOwned", message)


def made_for_pod(instance: IPInstance) -> bool:
    """Whether an IPInstance ends with its pod: one that another kind of object refers to is kept for it."""
    return instance.spec.binding.referred_object.kind == PODS.kind
