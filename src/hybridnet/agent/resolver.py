"""Answers the kernel's neighbour misses on the tunnel: which node has this address?

The kernel asks user space first (``app_solicit``), one second before it would broadcast. An address belongs to
one IPBlock, so one GET answers all of its 256 addresses that are asked for at once: no node watches all pods of
the cluster. Nothing is cached, for an address may move. What nobody claims is answered too, as failed, so that a
sender hears "unreachable" at once and no flood starts. Without the agent the kernel's own ARP and NDP still find
the node, over the replication entry.

Rejected: programming every pod's neighbour on every node, which costs O(pods) on each node for each pod.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from hybridnet.kube.client import Client
from hybridnet.kube.errors import ApiError, NotFound
from hybridnet.model.address import IPAddress, IPNetwork, block_name, block_of
from hybridnet.model.instance import IPBlock
from hybridnet.model.resource import IPBLOCKS
from hybridnet.plan.view import Vtep

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 1024
"""Distinct blocks being asked for at once; beyond it the kernel's broadcast answers."""

Answer = Callable[[IPAddress, str | None], None]


class Resolver:
    """One per node. *answer* writes the neighbour (MAC, or None for failed) and must not block."""

    def __init__(
        self, client: Client, node: str, vtep_of: Callable[[str], Vtep | None], answer: Answer
    ) -> None:
        self._client = client
        self._node = node
        self._vtep_of = vtep_of
        self._answer = answer
        self._nodes: dict[IPAddress, str] = {}
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._asking: dict[IPNetwork, set[IPAddress]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def set_node(self, node: str, addresses: tuple[IPAddress, ...]) -> None:
        """Other nodes' own addresses are answered from memory."""
        self.forget_node(node)
        self._addresses[node] = addresses
        self._nodes.update(dict.fromkeys(addresses, node))

    def forget_node(self, node: str) -> None:
        """A node has gone."""
        for address in self._addresses.pop(node, ()):
            self._nodes.pop(address, None)

    def miss(self, address: IPAddress) -> None:
        """The kernel asks for *address*. Returns at once; many misses of one block cost one request."""
        node = self._nodes.get(address)
        if node is not None:
            self._tell(address, node)
            return
        block, _ = block_of(address)
        waiting = self._asking.get(block)
        if waiting is not None:
            waiting.add(address)
        elif len(self._asking) < QUEUE_LIMIT:
            self._asking[block] = {address}
            task = asyncio.get_running_loop().create_task(self._ask(block))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, block: IPNetwork) -> None:
        try:
            found = await self._read(block)
        except ApiError as error:
            log.warning("neighbour not resolved, left to broadcast", block=str(block), error=str(error))
            self._asking.pop(block, None)
            return
        for address in self._asking.pop(block, set()):
            claim = found.holder(block_of(address)[1]) if found else None
            self._tell(address, claim.node if claim else "")

    async def _read(self, block: IPNetwork) -> IPBlock | None:
        with suppress(NotFound):
            return await self._client.get(IPBLOCKS, block_name(block))
        return None

    def _tell(self, address: IPAddress, node: str) -> None:
        vtep = self._vtep_of(node) if node and node != self._node else None
        self._answer(address, vtep.mac if vtep else None)
