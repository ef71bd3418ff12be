"""Compares pods, IPInstances and claims every minute, and repairs what events alone do not.

Covers what happens while no manager runs, or between two writes of one that dies: pods that vanished,
IPInstances whose claim was lost (a block deleted by hand, records made by the original), claims that never
got an IPInstance. Conservative: a claim without a record is freed only after a grace period and after a fresh
list of the pods of its node at the API server; a cache is not trusted with that.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NoReturn

import structlog
from msgspec import Struct, field

from hybridnet.ipam.range import address_at
from hybridnet.kube.client import Client
from hybridnet.kube.errors import ApiError
from hybridnet.manager.allocator import Allocator
from hybridnet.manager.blocks import BlockStore
from hybridnet.manager.cluster import Cluster, address_of, belongs
from hybridnet.manager.pod_state import finished, wants_address
from hybridnet.manager.pods import complete
from hybridnet.manager.release import Owner, made_for_pod
from hybridnet.manager.waiters import PodKey
from hybridnet.model.address import BLOCK_SIZE, block_name, block_of
from hybridnet.model.instance import Claim, IPInstance
from hybridnet.model.resource import PODS

log = structlog.get_logger(__name__)

PERIOD_S = 60.0
GRACE_S = 60.0
RESTORED_AT_ONCE = 1024


class Audit(Struct):
    """Finds what is left over or missing. The queues get what the controllers can repair themselves."""

    client: Client
    cluster: Cluster
    blocks: BlockStore
    allocator: Allocator
    serve_soon: Callable[[PodKey], None]
    release_owner_soon: Callable[[Owner], None]
    release_instance_soon: Callable[[tuple[str, str]], None]
    wake_waiters: Callable[[], None]
    suspects: dict[str, float] = field(default_factory=dict)
    """UIDs with claims but neither pod nor IPInstance, and since when (monotonic seconds)."""

    async def run(self) -> NoReturn:
        """Audit now and then every minute."""
        while True:
            try:
                await self.once()
            except ApiError as error:
                log.warning("audit interrupted, goes on in a minute", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def once(self) -> None:
        """One round."""
        self._queue_pods()
        self._queue_instances()
        await self._restore_claims()
        await self._refresh_blocks()
        await self._free_orphans()
        self.wake_waiters()

    def _queue_pods(self) -> None:
        for pod in self.cluster.pods.items():
            owner = Owner(pod.metadata.namespace, pod.name, pod.metadata.uid)
            if not wants_address(pod):
                if finished(pod) and (self.cluster.instances_of(owner.uid) or self._claims_of(owner.uid)):
                    self.release_owner_soon(owner)
                continue
            records = self.cluster.records_of(pod)
            if not complete(records):
                self.serve_soon(pod.key)
            elif len(records) > len({record.spec.address.version for record in records}):
                self.release_owner_soon(owner)

    def _queue_instances(self) -> None:
        for instance in self.cluster.instances.items():
            binding = instance.spec.binding
            if instance.metadata.terminating:
                self.release_instance_soon(instance.key)
            elif not binding.referred_object.kind:
                log.warning("instance refers to nothing, left alone: delete it", instance=instance.key)
            elif made_for_pod(instance) and self.cluster.pod_by_uid(binding.pod_uid) is None:
                owner = Owner(instance.metadata.namespace, binding.pod_name, binding.pod_uid)
                self.release_owner_soon(owner)

    async def _restore_claims(self) -> None:
        """Claim addresses that are in use by record but not by claim."""
        missing = [i for i in self.cluster.instances.items() if self._lacks_claim(i)]
        for begin in range(0, len(missing), RESTORED_AT_ONCE):
            await asyncio.gather(*(self._restore(i) for i in missing[begin : begin + RESTORED_AT_ONCE]))

    def _lacks_claim(self, instance: IPInstance) -> bool:
        place = address_of(instance)
        if place is None:
            log.warning("instance without a readable address, left alone", instance=instance.key)
            return False
        return self.cluster.book.ledgers[place[0]].holder(place[1]) is None and self._in_use(instance)

    async def _restore(self, instance: IPInstance) -> None:
        place, binding = address_of(instance), instance.spec.binding
        if place is not None:
            log.info("claim restored", instance=instance.key)
            await self.blocks.claim(*place, Claim(uid=binding.pod_uid, node=binding.node_name), exact=True)

    def _in_use(self, instance: IPInstance) -> bool:
        pod = self.cluster.pod_by_uid(instance.spec.binding.pod_uid)
        return (
            pod is not None
            and belongs(instance, pod)
            and not instance.metadata.terminating
            and not finished(pod)
        )

    async def _refresh_blocks(self) -> None:
        """Read again the blocks that the ledgers know and the cache does not: a deletion went unseen."""
        for family, ledger in self.cluster.book.ledgers.items():
            for number in list(ledger.blocks):
                name = block_name(block_of(address_at(family, number * BLOCK_SIZE))[0])
                if self.cluster.blocks.get(name) is None:
                    await self.blocks.refresh(family, number)

    async def _free_orphans(self) -> None:
        orphans = {uid for uid in self._owners() if not self._known(uid)}
        now = time.monotonic()
        self.suspects = {uid: self.suspects.get(uid, now) for uid in orphans}
        due: dict[str, list[str]] = defaultdict(list)
        for uid, since in self.suspects.items():
            if now - since >= GRACE_S:
                for node in self._nodes_of(uid):
                    due[node].append(uid)
        for node, uids in due.items():
            pods = await self.client.list(PODS, field_selector=f"spec.nodeName={node}")
            present = {pod.metadata.uid for pod in pods.items}
            for uid in uids:
                if uid not in present and not self._known(uid):
                    freed = await self.allocator.release_unrecorded(uid)
                    log.warning("orphaned claims freed", owner=uid, addresses=freed)

    def _owners(self) -> set[str]:
        return {uid for ledger in self.cluster.book.ledgers.values() for uid in ledger.owners()}

    def _known(self, uid: str) -> bool:
        return self.cluster.pod_by_uid(uid) is not None or bool(self.cluster.instances_of(uid))

    def _claims_of(self, uid: str) -> list[Claim]:
        ledgers = self.cluster.book.ledgers
        found = (ledgers[family].holder(address) for family, address in self.cluster.book.claims_of(uid))
        return [claim for claim in found if claim is not None]

    def _nodes_of(self, uid: str) -> set[str]:
        """Nodes in the claims of *uid*; a claim without node is reserved and stays."""
        return {claim.node for claim in self._claims_of(uid) if claim.node}
