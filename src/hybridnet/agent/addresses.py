"""The addresses of this node's pods, as the manager gave them: waiting for them, and which of them still hold.

ADD is woken by the event that brings the last address; it neither polls nor reads the pod. The IPInstances tell
by their ip-family label how many belong together (the original gave up after 10 ms and left the rest to the
runtime's retries).
"""

import asyncio
from collections import defaultdict
from ipaddress import ip_interface

import structlog
from msgspec import Struct

from hybridnet.agent.errors import AddressMissing
from hybridnet.agent.protocol import FAMILY_COUNT, Call
from hybridnet.kube.informer import Event, Informer
from hybridnet.model import labels
from hybridnet.model.address import Family, family_of
from hybridnet.model.instance import IPInstance
from hybridnet.plan.endpoint import PodAddress

log = structlog.get_logger(__name__)

BY_POD = "pod"
PodKey = tuple[str, str]


class Allocation(Struct, frozen=True):
    """Everything that the manager decided for a pod."""

    uid: str
    mac: str
    addresses: tuple[PodAddress, ...]
    instances: tuple[str, ...]
    reported: bool
    """Whether all of them tell who serves them."""


def index_by_pod(instance: IPInstance) -> list[str]:
    """Informer index: ``namespace/pod`` of the holder."""
    return [f"{instance.metadata.namespace}/{instance.spec.binding.pod_name}"]


class Addresses:
    """What the IPInstance informer of this node knows, by pod."""

    def __init__(self, informer: Informer[IPInstance]) -> None:
        self._informer = informer
        self._waiting: dict[PodKey, set[asyncio.Event]] = defaultdict(set)
        informer.add_handler(self._wake)

    def _wake(self, event: Event[IPInstance]) -> None:
        key = event.object.metadata.namespace, event.object.spec.binding.pod_name
        for waiter in self._waiting.get(key, ()):
            waiter.set()

    async def wait(self, call: Call, seconds: float) -> Allocation:
        """The complete allocation of the pod that *call* is about.

        Raises AddressMissing after *seconds* with what is there and where to look.
        """
        key, changed = (call.namespace, call.pod), asyncio.Event()
        self._waiting[key].add(changed)
        try:
            async with asyncio.timeout(seconds):
                while (found := self.find(call.namespace, call.pod, call.uid)) is None:
                    await changed.wait()
                    changed.clear()
                return found
        except TimeoutError:
            raise AddressMissing(self._explain(call, seconds)) from None
        finally:
            self._waiting[key].discard(changed)
            if not self._waiting[key]:
                del self._waiting[key]

    def find(self, namespace: str, pod: str, uid: str = "") -> Allocation | None:
        """The pod's allocation if it is complete."""
        instances = self._instances(namespace, pod, uid)
        by_family: dict[Family, IPInstance] = {}
        for instance in sorted(instances, key=lambda i: i.seniority):
            family = family_of(ip_interface(instance.spec.address.ip))
            by_family.setdefault(family, instance)
        if not by_family:
            return None
        first = next(iter(by_family.values()))
        wanted = FAMILY_COUNT.get(first.metadata.labels.get(labels.IP_FAMILY, ""), tuple(by_family))
        if not set(wanted) <= set(by_family):
            return None
        chosen = [by_family[family] for family in sorted(wanted)]
        return Allocation(
            uid=first.spec.binding.pod_uid,
            mac=first.spec.address.mac,
            addresses=tuple(PodAddress(ip_interface(i.spec.address.ip), i.spec.subnet) for i in chosen),
            instances=tuple(i.name for i in chosen),
            reported=all(i.reported for i in chosen),
        )

    def held(self, namespace: str, pod: str, uid: str) -> frozenset[str]:
        """Addresses (canonical, without length) that the pod still holds on this node."""
        instances = self._instances(namespace, pod, uid)
        return frozenset(str(ip_interface(i.spec.address.ip).ip) for i in instances)

    def _instances(self, namespace: str, pod: str, uid: str) -> list[IPInstance]:
        return [
            i
            for i in self._informer.by_index(BY_POD, f"{namespace}/{pod}")
            if not i.metadata.terminating
            and i.spec.binding.node_name
            and (not uid or i.spec.binding.pod_uid == uid)
            and _usable(i)
        ]

    def _explain(self, call: Call, seconds: float) -> str:
        found = self._instances(call.namespace, call.pod, call.uid)
        name = f"{call.namespace}/{call.pod}"
        if trouble := self._informer.trouble:
            return f"pod {name} has no address that this node knows, for the API server is away: {trouble}"
        if not found:
            return (
                f"pod {name} has no address after {seconds:g} s: see the IPAllocationFail event of the pod; "
                "without one, look at the hybridnet manager"
            )
        wanted = found[0].metadata.labels.get(labels.IP_FAMILY, "")
        return f"pod {name} wants {wanted} but has only {', '.join(sorted(i.name for i in found))}"


def _usable(instance: IPInstance) -> bool:
    try:
        ip_interface(instance.spec.address.ip)
    except ValueError:
        log.warning("address unreadable", instance=instance.name, address=instance.spec.address.ip)
        return False
    return True
