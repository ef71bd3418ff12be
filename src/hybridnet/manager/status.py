"""Writes the status of Networks and Subnets: about once a second per object, and only when it is different.

A burst of a thousand pods changes a counter a thousand times and costs a few writes. (The original listed all
nodes and patched both objects for every single address.)
"""

import asyncio
from typing import NoReturn

import structlog

from hybridnet.ipam.selection import serves
from hybridnet.kube.client import Client
from hybridnet.kube.errors import ApiError, Conflict, NotFound, Unavailable
from hybridnet.manager.cluster import Cluster
from hybridnet.manager.conditions import network_status, status_patch, subnet_status
from hybridnet.model.network import Network, NetworkStatus, SubnetStatus
from hybridnet.model.resource import NETWORKS, SUBNETS

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0


class StatusWriter:
    """Keeps status in step with the book."""

    def __init__(self, client: Client, cluster: Cluster) -> None:
        self._client = client
        self._cluster = cluster
        self._networks: set[str] = set()
        self._subnets: set[str] = set()
        self._changed = asyncio.Event()
        self._nodes: dict[str, tuple[str, ...]] = {}

    def network_changed(self, name: str) -> None:
        """Something that the network's status shows may be different."""
        self._networks.add(name)
        self._changed.set()

    def subnet_changed(self, name: str) -> None:
        """Something that the subnet's status shows may be different."""
        self._subnets.add(name)
        self._changed.set()

    def everything_changed(self) -> None:
        """Networks, subnets or the membership of nodes changed."""
        self._nodes.clear()
        self._networks.update(network.name for network in self._cluster.networks.items())
        self._subnets.update(subnet.name for subnet in self._cluster.subnets.items())
        self._changed.set()

    def nodes_changed(self) -> None:
        """A node came, went or has other labels."""
        self._nodes.clear()
        self._networks.update(network.name for network in self._cluster.networks.items())
        self._changed.set()

    async def run(self) -> NoReturn:
        """Write what changed, at most once a second."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.write()
            await asyncio.sleep(INTERVAL_S)

    async def write(self) -> None:
        """Write all differences now. What fails is tried again in the next round."""
        networks, self._networks = self._networks, set()
        subnets, self._subnets = self._subnets, set()
        work = [
            *((self._write_subnet, self.subnet_changed, name) for name in sorted(subnets)),
            *((self._write_network, self.network_changed, name) for name in sorted(networks)),
        ]
        for position, (write, again, name) in enumerate(work):
            try:
                await write(name)
            except Unavailable as error:
                log.warning("status not written", waiting=len(work) - position, error=str(error))
                for _, later, left in work[position:]:
                    later(left)
                return
            except Conflict:
                again(name)
            except ApiError as error:
                log.warning("status refused", object=name, error=str(error))
                again(name)

    async def _write_subnet(self, name: str) -> None:
        subnet = self._cluster.subnets.get(name)
        if subnet is None or subnet.metadata.terminating:
            return
        pool = self._cluster.book.pools.get(name)
        wanted = subnet_status(subnet, pool, self._cluster.book.judgement.subnet_problems.get(name))
        if wanted != subnet.status:
            cursor = pool.cursor if pool else None
            await self._patch_subnet(name, subnet.metadata.resource_version, wanted)
            if pool and pool.cursor == cursor:
                pool.unsaved = False

    async def _write_network(self, name: str) -> None:
        network = self._cluster.networks.get(name)
        if network is None or network.metadata.terminating:
            return
        book = self._cluster.book
        pool = book.networks.get(name)
        subnets = [
            s.name
            for s in self._cluster.subnets.items()
            if s.spec.network == name and not s.metadata.terminating
        ]
        problem = book.judgement.network_problems.get(name)
        wanted = network_status(network, pool, problem, subnets, self._nodes_of(network))
        if wanted != network.status:
            moved = set(pool.unsaved) if pool else set()
            await self._patch_network(name, network.metadata.resource_version, wanted)
            if pool:
                pool.unsaved -= moved

    def _nodes_of(self, network: Network) -> tuple[str, ...]:
        judgement = self._cluster.book.judgement
        if network.name not in judgement.networks:
            return ()
        if network.name not in self._nodes:
            members = (
                n for n, labels in self._cluster.node_labels.items() if serves(network, labels, judgement)
            )
            self._nodes[network.name] = tuple(sorted(members))
        return self._nodes[network.name]

    async def _patch_subnet(self, name: str, version: str, status: SubnetStatus) -> None:
        try:
            await self._client.patch(SUBNETS, name, status_patch(version, status), subresource="status")
        except NotFound:
            log.debug("subnet went before its status was written", subnet=name)

    async def _patch_network(self, name: str, version: str, status: NetworkStatus) -> None:
        try:
            await self._client.patch(NETWORKS, name, status_patch(version, status), subresource="status")
        except NotFound:
            log.debug("network went before its status was written", network=name)
