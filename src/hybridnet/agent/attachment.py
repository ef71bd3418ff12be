"""ADD, DEL, CHECK and GC of pod interfaces: the order of things, and what happens when one fails.

ADD: wait for the addresses, record, make the link, tell the data plane, announce. DEL: tell the data plane,
delete the link, forget the record. Calls for one sandbox are done one after the other; calls for different
sandboxes side by side. Whatever fails in ADD is undone before the error is reported; DEL reports no failure of
its own, for a runtime that cannot delete a pod keeps it for ever, and what it leaves is swept by the next start.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from hybridnet.agent import wiring
from hybridnet.agent.addresses import Addresses, Allocation
from hybridnet.agent.dataplane import Dataplane, DataplaneError
from hybridnet.agent.errors import TRY_AGAIN_LATER, CniError, NotReady, SegmentMissing
from hybridnet.agent.protocol import Call, device_name
from hybridnet.agent.removal import LinkRemover
from hybridnet.agent.sandbox import SandboxStore
from hybridnet.kernel.errors import KernelError
from hybridnet.plan.endpoint import Endpoint

log = structlog.get_logger(__name__)

Report = Callable[[Endpoint, Allocation], None]


class Attachments:
    """The pod interfaces of this node."""

    def __init__(
        self,
        node: str,
        addresses: Addresses,
        store: SandboxStore,
        dataplane: Dataplane,
        report: Report,
        patience: float,
    ) -> None:
        """*patience*: seconds that ADD waits for the pod's addresses."""
        self._node = node
        self._patience = patience
        self._addresses = addresses
        self._store = store
        self._dataplane = dataplane
        self._report = report
        self._links = LinkRemover()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def link_gone(self, device: str) -> None:
        """The kernel has told that *device* is no more."""
        self._links.gone(device)

    def close(self) -> None:
        """Wait for what is still being removed."""
        self._links.close()

    async def add(self, call: Call) -> Endpoint:
        """Make the pod's interface; the same call again gives the same answer. Raises CniError."""
        async with self._alone(call.container):
            allocation = await self._addresses.wait(call, self._patience)
            endpoint = self._endpoint(call, allocation)
            try:
                await self._make(endpoint)
            except (KernelError, DataplaneError, OSError) as error:
                await asyncio.shield(self._undo(endpoint))
                raise CniError(
                    TRY_AGAIN_LATER, f"node {self._node} could not make the pod's interface: {error}"
                ) from error
            except BaseException:
                await asyncio.shield(self._undo(endpoint))
                raise
        self._dataplane.announce(endpoint)
        self._report(endpoint, allocation)
        return endpoint

    async def _make(self, endpoint: Endpoint) -> None:
        known = self._store.get(endpoint.container, endpoint.interface)
        if known == endpoint and not await asyncio.to_thread(wiring.check, endpoint):
            await self._dataplane.set_endpoint(endpoint)
        else:
            self._store.save(endpoint)
            await self._dataplane.set_endpoint(endpoint, partial(wiring.wire, endpoint))

    async def delete(self, call: Call) -> None:
        """Remove the pod's interface and everything that hangs on it. Nothing there is success.

        A caller that goes away does not stop it half way.
        """
        await asyncio.shield(self._delete(call))

    async def _delete(self, call: Call) -> None:
        async with self._alone(call.container):
            endpoint = self._store.get(call.container, call.interface)
            if endpoint is not None:
                await self._undo(endpoint)
            else:
                await self._links.remove(device_name(call.container, call.interface))
                self._forget(call.container, call.interface)

    async def check(self, call: Call) -> None:
        """CHECK: raises CniError that says what differs from what ADD made."""
        endpoint = self._store.get(call.container, call.interface)
        if endpoint is None:
            raise CniError(TRY_AGAIN_LATER, f"node {self._node} does not know sandbox {call.container}")
        finding = await asyncio.to_thread(wiring.check, endpoint)
        if finding:
            raise CniError(TRY_AGAIN_LATER, f"pod {endpoint.namespace}/{endpoint.pod}: {finding.text}")

    async def collect(self, call: Call) -> None:
        """GC (CNI 1.1): remove every interface that the runtime does not list any more."""
        valid = {(a.container, a.interface) for a in call.attachments}
        for endpoint in self._store.items():
            if (endpoint.container, endpoint.interface) not in valid:
                await self._remove(endpoint)

    def report_again(self, namespace: str, pod: str) -> None:
        """Report the pod's sandboxes to records that do not tell of one: written anew, or never reached."""
        for endpoint in self._dataplane.endpoints_of(namespace, pod):
            allocation = self._addresses.find(namespace, pod, endpoint.uid)
            if allocation is not None and not allocation.reported:
                self._report(endpoint, allocation)

    async def sweep(self) -> None:
        """Forget sandboxes whose namespace is gone: DEL came while no agent could answer, or a reboot."""
        for endpoint in self._store.items():
            async with self._alone(endpoint.container):
                if self._store.get(endpoint.container, endpoint.interface) != endpoint:
                    continue
                finding = await asyncio.to_thread(wiring.gone, endpoint)
                if finding:
                    log.info("sandbox gone", pod=f"{endpoint.namespace}/{endpoint.pod}", why=finding.text)
                    await self._undo(endpoint)

    def _endpoint(self, call: Call, allocation: Allocation) -> Endpoint:
        plan = self._dataplane.plan
        if plan is None:
            raise NotReady(
                f"node {self._node} has no Node object that its agent could read: is it registered?"
            )
        segments = []
        for address in allocation.addresses:
            segment = plan.segments.get(address.subnet)
            if segment is None:
                raise SegmentMissing(self._dataplane.explain(address.subnet))
            segments.append(segment)
        return Endpoint(
            container=call.container,
            interface=call.interface,
            device=device_name(call.container, call.interface),
            namespace=call.namespace,
            pod=call.pod,
            uid=allocation.uid,
            mac=allocation.mac,
            mtu=min(s.mtu for s in segments),
            netns=call.netns,
            addresses=allocation.addresses,
        )

    async def _remove(self, endpoint: Endpoint) -> None:
        async with self._alone(endpoint.container):
            await self._undo(endpoint)

    async def _undo(self, endpoint: Endpoint) -> None:
        await self._dataplane.remove_endpoint(endpoint)
        await self._links.remove(endpoint.device)
        self._forget(endpoint.container, endpoint.interface)

    def _forget(self, container: str, interface: str) -> None:
        try:
            self._store.remove(container, interface)
        except OSError as error:
            log.error("sandbox record not removed", container=container, error=str(error))

    @asynccontextmanager
    async def _alone(self, container: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(container, (asyncio.Lock(), 0))
        self._locks[container] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            users = self._locks[container][1]
            if users == 1:
                del self._locks[container]
            else:
                self._locks[container] = lock, users - 1
