"""What the manager sees of the cluster: informers, and the address book that follows them.

The book is kept up to date on every manager, leading or not, so a new leader starts with a warm memory.
Events reach the leader's controllers through one :class:`Observer`; without one they only update the book.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import ip_interface
from typing import Any, Protocol

import structlog

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.claims import read_block
from hybridnet.ipam.mac import MacRegistry
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.validity import judge
from hybridnet.kube.client import Client
from hybridnet.kube.informer import Event, EventKind, Informer
from hybridnet.model.address import Family
from hybridnet.model.core import Namespace, Node, Pod
from hybridnet.model.instance import IPBlock, IPInstance
from hybridnet.model.network import Network, Subnet
from hybridnet.model.resource import IPBLOCKS, IPINSTANCES, NAMESPACES, NETWORKS, NODES, PODS, SUBNETS

log = structlog.get_logger(__name__)

BY_UID = "uid"
SCHEDULED = "spec.nodeName!="
REMEMBERED_GONE = 50_000


class Observer(Protocol):
    """What a leader wants to be told. Called on the event loop; must be quick."""

    def pod_changed(self, event: Event[Pod]) -> None:
        """A scheduled pod came, changed or went."""

    def instance_changed(self, event: Event[IPInstance]) -> None:
        """An IPInstance came, changed or went."""

    def topology_changed(self) -> None:
        """Networks or subnets are different now, and the book with them."""

    def status_seen(self, obj: Network | Subnet) -> None:
        """A network or subnet changed in its status only."""

    def node_changed(self, name: str) -> None:
        """A node came, went, or has other labels."""

    def namespace_changed(self, name: str) -> None:
        """A namespace has other labels or annotations."""

    def pool_changed(self, pool: SubnetPool, freed: bool) -> None:
        """An address of a subnet was taken or freed."""


class Cluster:
    """Informers, indexes and the address book of one manager process."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.observer: Observer | None = None
        self.macs = MacRegistry()
        self.book = AddressBook(self._on_pool)
        self.gone: OrderedDict[str, None] = OrderedDict()
        """UIDs of pods whose deletion was seen: certainly gone."""
        self.nodes: Informer[Node] = Informer(client, NODES)
        self.namespaces: Informer[Namespace] = Informer(client, NAMESPACES)
        self.networks: Informer[Network] = Informer(client, NETWORKS)
        self.subnets: Informer[Subnet] = Informer(client, SUBNETS)
        self.blocks: Informer[IPBlock] = Informer(client, IPBLOCKS)
        self.instances: Informer[IPInstance] = Informer(
            client, IPINSTANCES, indexes={BY_UID: lambda instance: [instance.spec.binding.pod_uid]}
        )
        self.pods: Informer[Pod] = Informer(
            client, PODS, field_selector=SCHEDULED, indexes={BY_UID: lambda pod: [pod.metadata.uid]}
        )
        self.node_labels: dict[str, Mapping[str, str]] = {}
        self._stale = False
        self._connect()

    def _connect(self) -> None:
        self.nodes.add_handler(self._on_node)
        self.namespaces.add_handler(self._on_namespace)
        self.networks.add_handler(self._on_network)
        self.subnets.add_handler(self._on_subnet)
        self.blocks.add_handler(self._on_block)
        self.instances.add_handler(self._on_instance)
        self.pods.add_handler(self._on_pod)

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        """All informers, in the order in which they are worth waiting for."""
        return (
            self.nodes,
            self.namespaces,
            self.networks,
            self.subnets,
            self.blocks,
            self.instances,
            self.pods,
        )

    def pod_by_uid(self, uid: str) -> Pod | None:
        """The scheduled pod with this UID."""
        return next(iter(self.pods.by_index(BY_UID, uid)), None)

    def instances_of(self, uid: str) -> list[IPInstance]:
        """All IPInstances whose binding names this pod UID, forged and terminating ones included."""
        return list(self.instances.by_index(BY_UID, uid)) if uid else []

    def records_of(self, pod: Pod) -> list[IPInstance]:
        """The living IPInstances that are really this pod's: same UID, namespace and name."""
        return [
            i for i in self.instances_of(pod.metadata.uid) if not i.metadata.terminating and belongs(i, pod)
        ]

    def refresh(self) -> None:
        """Judge networks and subnets, and let the book follow."""
        self._stale = False
        self.book.apply(judge(self.networks.items(), self.subnets.items()))
        if self.observer:
            self.observer.topology_changed()

    def _refresh_soon(self) -> None:
        if not self._stale:
            self._stale = True
            asyncio.get_running_loop().call_soon(self.refresh)

    def _on_network(self, event: Event[Network]) -> None:
        if _meant_change(event):
            self._refresh_soon()
        else:
            self.book.restore_current(event.object)
            if self.observer:
                self.observer.status_seen(event.object)

    def _on_subnet(self, event: Event[Subnet]) -> None:
        if _meant_change(event):
            self._refresh_soon()
        else:
            self.book.restore_cursor(event.object)
            if self.observer:
                self.observer.status_seen(event.object)

    def _on_node(self, event: Event[Node]) -> None:
        name = event.object.name
        present = event.kind is not EventKind.DELETED and not event.object.metadata.terminating
        labels = event.object.metadata.labels if present else None
        if labels == self.node_labels.get(name):
            return
        if labels is None:
            del self.node_labels[name]
        else:
            self.node_labels[name] = labels
        if self.observer:
            self.observer.node_changed(name)

    def _on_namespace(self, event: Event[Namespace]) -> None:
        new, old = event.object.metadata, event.old.metadata if event.old else None
        if old and (new.labels, new.annotations) == (old.labels, old.annotations):
            return
        if self.observer:
            self.observer.namespace_changed(event.object.name)

    def _on_block(self, event: Event[IPBlock]) -> None:
        try:
            family, number, claims = read_block(event.object)
        except ValueError as error:
            log.error("block ignored: correct or delete it", block=event.object.name, error=str(error))
            return
        ledger, version = self.book.ledgers[family], event.object.metadata.resource_version
        known = ledger.block(number).version
        if event.kind is EventKind.DELETED:
            if not older(version, known):
                ledger.adopt(number, "", {})
        elif not known or older(known, version):
            ledger.adopt(number, version, claims)

    def _on_instance(self, event: Event[IPInstance]) -> None:
        before = address_of(event.old) if event.old else None
        after = None if event.kind is EventKind.DELETED else address_of(event.object)
        if event.kind is EventKind.DELETED and before is None:
            before = address_of(event.object)
        if before != after:
            if after:
                self.book.ledgers[after[0]].record(after[1])
            if before:
                self.book.ledgers[before[0]].unrecord(before[1])
        uid = event.object.spec.binding.pod_uid
        if event.kind is EventKind.DELETED:
            self._forget(uid)
        elif uid:
            self.macs.learn_first(uid, event.object.spec.address.mac)
        if self.observer:
            self.observer.instance_changed(event)

    def _on_pod(self, event: Event[Pod]) -> None:
        replaced = event.old if event.old and event.old.metadata.uid != event.object.metadata.uid else None
        if event.kind is EventKind.DELETED or replaced:
            uid = (replaced or event.object).metadata.uid
            self.gone[uid] = None
            if len(self.gone) > REMEMBERED_GONE:
                self.gone.popitem(last=False)
            self._forget(uid)
        if self.observer:
            self.observer.pod_changed(event)

    def _forget(self, uid: str) -> None:
        """Forget the MAC of a pod when both it and its records have gone."""
        if uid in self.gone and not self.instances_of(uid):
            self.macs.forget(uid)

    def _on_pool(self, pool: SubnetPool, freed: bool) -> None:
        if self.observer:
            self.observer.pool_changed(pool, freed)


def belongs(instance: IPInstance, pod: Pod) -> bool:
    """Whether an IPInstance is the pod's: one that merely copies its UID is not."""
    binding = instance.spec.binding
    return (
        binding.pod_uid == pod.metadata.uid
        and binding.pod_name == pod.name
        and instance.metadata.namespace == pod.metadata.namespace
    )


def address_of(instance: IPInstance) -> tuple[Family, int] | None:
    """Family and integer of an IPInstance's address; None when it is not readable."""
    try:
        address = ip_interface(instance.spec.address.ip).ip
    except ValueError:
        return None
    return Family(address.version), int(address)


def older(one: str, other: str) -> bool:
    """Whether resourceVersion *one* is older than *other* (they are comparable integers, KEP-5504)."""
    return int(one or 0) < int(other or 0)


def _meant_change(event: Event[Network] | Event[Subnet]) -> bool:
    """Whether what an operator wants changed, not merely what a manager reported."""
    new, old = event.object, event.old
    return (
        event.kind is not EventKind.MODIFIED
        or old is None
        or new.spec != old.spec
        or new.metadata.terminating != old.metadata.terminating
        or new.metadata.uid != old.metadata.uid
    )
