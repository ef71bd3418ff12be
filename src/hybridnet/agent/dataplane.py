"""The node's data plane: plans on the event loop, writes on one thread, nothing else writes to the kernel.

Every change is planned as a scope (the node, one peer, one pod) and applied as the difference to what that scope
had. One thread owns the netlink socket and the nftables context, so writes are in order without locks and the
loop never waits for the kernel. The newest sandbox that wants an address has it: while the old and the new
sandbox of one pod overlap, the old one's end cannot take the address away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from msgspec import structs

from hybridnet.kernel.announce import Announcer
from hybridnet.kernel.applier import KernelApplier, Result
from hybridnet.kernel.errors import DeviceNotFound, KernelError, NftError
from hybridnet.kernel.link import change_message
from hybridnet.kernel.neighbour import NeighbourState, set_neighbour
from hybridnet.kernel.nftables import NftApplier
from hybridnet.model.address import IPAddress
from hybridnet.plan import layout
from hybridnet.plan.endpoint import Endpoint, EndpointPlan, plan_endpoint
from hybridnet.plan.node import NodePlan, PeerPlan, plan_node, plan_peer
from hybridnet.plan.state import VxlanLink
from hybridnet.plan.view import NodeView, Vtep

log = structlog.get_logger(__name__)

T = TypeVar("T")
NODE_SCOPE = "node"


class DataplaneError(Exception):
    """Some objects of a scope could not be written; each was logged, the scope is to be tried again."""


class Dataplane:
    """Applies plans. All methods are called on the event loop."""

    def __init__(self, node: str, held: Callable[[Endpoint], frozenset[str]]) -> None:
        """*held* tells which addresses of an endpoint its pod still holds; the others are not served."""
        self._node = node
        self._held = held
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._kernel: KernelApplier
        self._nft: NftApplier
        self._announcer: Announcer
        self._endpoints: dict[str, Endpoint] = {}
        self._owner: dict[IPAddress, str] = {}
        self._scopes: dict[tuple[str, str], list[str]] = {}
        """(namespace, pod) to the scopes of its sandboxes, the newest last."""
        self._peers: dict[str, Vtep] = {}
        self._tunnel_index = 0
        self._pruned = False
        self.view: NodeView | None = None
        self.plan: NodePlan | None = None

    async def start(self) -> None:
        """Take over what a former process left in the kernel. NotPermitted, NftError."""
        await self._on_thread(self._adopt)

    def close(self) -> None:
        """End the thread; the kernel keeps everything."""
        self._thread.shutdown(wait=True)

    def _adopt(self) -> None:
        self._kernel = KernelApplier()
        self._kernel.rtnl.request(change_message("lo", up=True))  # says at once whether we may write at all
        adopted = self._kernel.adopt(layout.MANAGED_TABLES)
        self._nft = NftApplier()
        self._announcer = Announcer()
        log.info("kernel state adopted", objects=len(adopted))

    async def set_node(self, view: NodeView) -> NodePlan:
        """Plan and apply the node's own scope, and every peer and pod if what they build on has changed.

        Raises the first DataplaneError or NftError, after all has been tried.
        """
        plan = plan_node(view)
        again = self.plan is None or (plan.segments, plan.tunnel) != (self.plan.segments, self.plan.tunnel)
        again = again or self.view is None or self.view.subnets != view.subnets or self.view.vtep != view.vtep
        self.view, self.plan = view, plan
        work: list[Awaitable[None]] = [self._on_thread(self._write_node, plan)]
        if again:
            peers = list(self._peers.values())
            work += [self._apply(_peer_scope(p.node), plan_peer(p, view, plan.tunnel)) for p in peers]
            work += [self._apply_endpoint(scope) for scope in list(self._endpoints)]
        await _all(work)
        return plan

    def _write_node(self, plan: NodePlan) -> None:
        result = self._kernel.apply(NODE_SCOPE, plan.objects)
        failed = _log_failures(NODE_SCOPE, result)
        self._tunnel_index = self._find_tunnel(plan)
        self._nft.ensure(plan.tables, again=any(isinstance(o, VxlanLink) for o in result.written))
        if failed:
            raise DataplaneError(f"{failed} objects of the node could not be written")

    def _find_tunnel(self, plan: NodePlan) -> int:
        try:
            return self._kernel.devices.index(plan.tunnel) if plan.tunnel else 0
        except DeviceNotFound:
            return 0

    def learn_peer(self, vtep: Vtep) -> None:
        """Know a peer; written with the next :meth:`set_node`."""
        self._peers[vtep.node] = vtep

    def peer(self, node: str) -> Vtep | None:
        """The tunnel endpoint of another node."""
        return self._peers.get(node)

    async def set_peer(self, vtep: Vtep) -> None:
        """A peer is there, or has changed."""
        self._peers[vtep.node] = vtep
        if self.view is not None and self.plan is not None:
            await self._apply(_peer_scope(vtep.node), plan_peer(vtep, self.view, self.plan.tunnel))

    async def remove_peer(self, node: str) -> None:
        """A peer is gone."""
        if self._peers.pop(node, None) is not None:
            await self._apply(_peer_scope(node), PeerPlan((), ()))

    def learn_endpoint(self, endpoint: Endpoint) -> None:
        """Know a pod; written with the next :meth:`set_node`."""
        self._endpoints[endpoint.scope] = endpoint
        scopes = self._scopes.setdefault((endpoint.namespace, endpoint.pod), [])
        scopes[:] = [*(s for s in scopes if s != endpoint.scope), endpoint.scope]
        for pod in endpoint.addresses:
            self._owner[pod.address.ip] = endpoint.scope

    async def set_endpoint(self, endpoint: Endpoint, make_link: Callable[[], None] | None = None) -> None:
        """Serve a pod; an older sandbox that has the same address loses it.

        *make_link* makes the pod's link before, on the thread that writes: changing threads twice more would cost
        more than making links side by side gains. Raises DataplaneError, NftError, and what *make_link* raises.
        """
        older = {self._owner.get(pod.address.ip) for pod in endpoint.addresses} - {None, endpoint.scope}
        renewed = endpoint.device if endpoint.scope in self._endpoints else ""
        self.learn_endpoint(endpoint)
        for scope in older:
            await self._apply_endpoint(scope or "")
        if make_link is None:
            await self._apply_endpoint(endpoint.scope)
        else:
            plan = self._plan_endpoint(endpoint)
            await self._on_thread(self._write_link, make_link, renewed, endpoint.scope, plan)

    async def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Serve a pod no more. Never fails: what cannot be removed is logged and left to the audit."""
        if self._endpoints.pop(endpoint.scope, None) is None:
            return
        heirs = self._inherit(endpoint)
        try:
            await self._apply(endpoint.scope, EndpointPlan())
            for scope in heirs:
                await self._apply_endpoint(scope)
        except (DataplaneError, NftError) as error:
            log.error("pod's kernel objects not removed", scope=endpoint.scope, error=str(error))

    def _inherit(self, endpoint: Endpoint) -> set[str]:
        """Give what *endpoint* owned to the newest other sandbox of its pod; the scopes that got something."""
        key = endpoint.namespace, endpoint.pod
        others = [scope for scope in self._scopes[key] if scope != endpoint.scope]
        if others:
            self._scopes[key] = others
        else:
            del self._scopes[key]
        heirs = set()
        for address in [a for a, scope in self._owner.items() if scope == endpoint.scope]:
            del self._owner[address]
            for scope in others:
                if any(pod.address.ip == address for pod in self._endpoints[scope].addresses):
                    self._owner[address] = scope
                    heirs.add(scope)
        return heirs

    def endpoints_of(self, namespace: str, pod: str) -> list[Endpoint]:
        """The sandboxes of a pod."""
        return [self._endpoints[scope] for scope in sorted(self._scopes.get((namespace, pod), ()))]

    async def refresh_pod(self, namespace: str, pod: str) -> None:
        """The addresses that a pod holds may have changed."""
        for scope in sorted(self._scopes.get((namespace, pod), ())):
            await self._apply_endpoint(scope)

    async def _apply_endpoint(self, scope: str) -> None:
        if (endpoint := self._endpoints.get(scope)) is not None:
            await self._apply(scope, self._plan_endpoint(endpoint))

    def _plan_endpoint(self, endpoint: Endpoint) -> EndpointPlan:
        if self.view is None or self.plan is None:
            return EndpointPlan()
        held = self._held(endpoint)
        served = tuple(
            pod
            for pod in endpoint.addresses
            if str(pod.address.ip) in held and self._owner.get(pod.address.ip) == endpoint.scope
        )
        wanted = structs.replace(endpoint, addresses=served)
        return plan_endpoint(wanted, self.view, self.plan.segments)

    async def _apply(self, scope: str, plan: EndpointPlan | PeerPlan) -> None:
        await self._on_thread(self._write_scope, scope, plan)

    def _write_link(
        self, make_link: Callable[[], None], renewed: str, scope: str, plan: EndpointPlan
    ) -> None:
        """*renewed*: the device, if there was one before: the kernel has dropped what was on that one."""
        make_link()
        if renewed:
            self._kernel.forget_device(renewed)
        self._write_scope(scope, plan)

    def _write_scope(self, scope: str, plan: EndpointPlan | PeerPlan) -> None:
        failed = _log_failures(scope, self._kernel.apply(scope, plan.objects))
        self._nft.set_elements(scope, plan.elements)
        if failed:
            raise DataplaneError(f"{failed} objects of {scope} could not be written")

    @property
    def port(self) -> int:
        """Netlink port id of our writes."""
        return self._kernel.rtnl.port

    @property
    def tunnel_index(self) -> int:
        """Index of the tunnel device; 0 when there is none."""
        return self._tunnel_index

    async def prune(self) -> None:
        """All is known: remove what is ours and nobody wants. Only once, and not before there is a plan."""
        if self._pruned or self.plan is None:
            return
        self._pruned = True
        result = await self._on_thread(self._kernel.prune)
        await self._on_thread(self._nft.prune)
        _log_failures("prune", result)
        log.info("kernel state pruned", removed=len(result.removed))

    async def audit(self) -> None:
        """Compare the kernel with all plans and repair the difference."""
        drift = await self._on_thread(self._kernel.audit)
        tables = await self._on_thread(self._nft.audit)
        if drift or tables:
            log.warning(
                "kernel repaired",
                missing=[str(o) for o in drift.missing],
                different=[str(o) for o in drift.different],
                surplus=[str(o) for o in drift.surplus],
                nftables=tables,
            )
        _log_failures("audit", drift)

    def answer(self, address: IPAddress, mac: str | None) -> None:
        """Write a neighbour of the tunnel (None: nobody has the address). Returns at once."""
        if self.plan is not None and self.plan.tunnel:
            self._thread.submit(self._write_neighbour, self.plan.tunnel, address, mac)

    def _write_neighbour(self, tunnel: str, address: IPAddress, mac: str | None) -> None:
        state = NeighbourState.FAILED if mac is None else NeighbourState.REACHABLE
        try:
            index = self._kernel.devices.index(tunnel)
            self._kernel.rtnl.request(set_neighbour(index, address, mac or "", state))
        except KernelError as error:
            log.warning("neighbour not written", address=str(address), error=str(error))

    def announce(self, endpoint: Endpoint) -> None:
        """Tell the segment and the tunnel's peers where the pod's addresses are. Returns at once."""
        if self.plan is None:
            return
        for pod in endpoint.addresses:
            segment = self.plan.segments.get(pod.subnet)
            devices = {self.plan.tunnel, segment.device if segment is not None else ""} - {""}
            for device in devices:
                self._thread.submit(self._send_announcement, device, pod.address.ip)

    def _send_announcement(self, device: str, address: IPAddress) -> None:
        try:
            self._announcer.announce(device, [address])
        except KernelError as error:
            log.warning("address not announced", device=device, address=str(address), error=str(error))

    def explain(self, subnet: str) -> str:
        """Why this node does not serve *subnet*, with the next step."""
        problems = self.plan.problems if self.plan is not None else ()
        for problem in problems:
            if problem.name == subnet:
                return f"node {self._node}: {problem.message}"
        known = {s.name: s for s in self.view.subnets} if self.view is not None else {}
        if self.view is not None and subnet in known and known[subnet].family not in self.view.families:
            return (
                f"node {self._node} has IPv{known[subnet].family.value} switched off and cannot serve subnet "
                f"{subnet}: see net.ipv6.conf.all.disable_ipv6, or schedule the pod elsewhere"
            )
        if subnet in known and not known[subnet].attached:
            network = known[subnet].network
            return (
                f"node {self._node} does not belong to network {network} of subnet {subnet}: "
                "label the node as the network's nodeSelector says, or schedule the pod elsewhere"
            )
        return f"node {self._node} does not know subnet {subnet}: does the Subnet object exist?"

    async def _on_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do everything in order; what failed first is raised at the end."""
    errors: list[DataplaneError | NftError] = []
    for each in work:
        try:
            await each
        except (DataplaneError, NftError) as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _peer_scope(node: str) -> str:
    return f"peer/{node}"


def _log_failures(scope: str, result: Result) -> int:
    failures: Iterable[tuple[object, KernelError]] = result.failures
    for item, error in failures:
        log.error("kernel object not written", scope=scope, object=str(item), error=str(error))
    return len(result.failures)
