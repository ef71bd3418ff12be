"""What the agent writes to the API: its NodeInfo, conditions, and the status of the addresses it serves.

Never on the path of ADD: a pod does not wait for a status. Each object is a key of a work queue, so an API server
that is away costs retries with a growing pause and one entry an object, however often it changed meanwhile.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from hybridnet.agent.addresses import Allocation
from hybridnet.agent.observation import vtep_info
from hybridnet.kube.client import Client
from hybridnet.kube.errors import NotFound
from hybridnet.kube.queue import WorkQueue
from hybridnet.model.core import Node
from hybridnet.model.instance import NodeInfo, NodeInfoSpec
from hybridnet.model.meta import Condition, ObjectMeta, OwnerReference
from hybridnet.model.resource import IPINSTANCES, NODEINFOS
from hybridnet.plan.endpoint import Endpoint
from hybridnet.plan.view import Problem, Vtep

log = structlog.get_logger(__name__)

Key = tuple[str, str]
READY = "Ready"
_MESSAGE_LIMIT = 4096
STATUS_SECONDS = 1.0
"""How long after ADD the status is written. Pods come in bursts: our time and the API server's is theirs first,
and a write costs both more than the ADD that it is about."""


def now() -> str:
    """RFC 3339 in seconds, as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ready_condition(problems: Sequence[Problem], before: Sequence[Condition]) -> Condition:
    """One condition that sums up what the node cannot serve, each with its next step."""
    status = "False" if problems else "True"
    reason = problems[0].reason if problems else "Serving"
    text = "; ".join(p.message for p in problems) or "every network of this node is served"
    old = next((c for c in before if c.type == READY), None)
    since = old.last_transition_time if old is not None and old.status == status else now()
    return Condition(
        type=READY, status=status, reason=reason, message=text[:_MESSAGE_LIMIT], last_transition_time=since
    )


class Reporter:
    """Writes in the background until its task is cancelled."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._queue: WorkQueue[Key] = WorkQueue()
        self._sandboxes: dict[Key, Endpoint] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        await self._queue.run_workers(4, self._write_status)

    def report(self, endpoint: Endpoint, allocation: Allocation) -> None:
        """Tell in the status of its IPInstances, a moment later, that this node serves the pod."""
        loop = asyncio.get_running_loop()
        for name in allocation.instances:
            key = endpoint.namespace, name
            self._sandboxes[key] = endpoint
            loop.call_later(STATUS_SECONDS, self._queue.add, key)

    async def _write_status(self, key: Key) -> None:
        endpoint = self._sandboxes.pop(key, None)
        if endpoint is None:
            return
        status = {
            "nodeName": self._node,
            "podName": endpoint.pod,
            "podNamespace": endpoint.namespace,
            "sandboxID": endpoint.container,
            "updateTimestamp": now(),
        }
        namespace, name = key
        try:
            await self._client.patch(
                IPINSTANCES, name, {"status": status}, namespace, kind="merge", subresource="status"
            )
        except NotFound:
            log.info("address gone before its status was written", instance=name, namespace=namespace)
        except Exception:
            self._sandboxes.setdefault(key, endpoint)
            raise

    async def publish(
        self, node: Node, have: NodeInfo | None, vtep: Vtep | None, problems: Sequence[Problem]
    ) -> None:
        """Make this node's NodeInfo say how it is reached and what it cannot serve. Raises ApiError."""
        info = vtep_info(vtep) if vtep is not None else None
        if have is None:
            owner = OwnerReference(
                api_version="v1", kind="Node", name=node.name, uid=node.metadata.uid, controller=True
            )
            created = NodeInfo(
                metadata=ObjectMeta(name=node.name, owner_references=(owner,)),
                spec=NodeInfoSpec(vtep_info=info),
            )
            have = await self._client.create(NODEINFOS, created)
            changed = True
        else:
            changed = have.spec.vtep_info != info
            if changed:
                spec = {
                    "vtepInfo": None
                    if info is None
                    else {"ip": info.ip, "mac": info.mac, "localIPs": info.local_ips}
                }
                have = await self._client.patch(NODEINFOS, node.name, {"spec": spec}, kind="merge")
        before = have.status.conditions if have.status else ()
        condition = ready_condition(problems, before)
        if not changed and condition in before:
            return
        status: dict[str, object] = {"conditions": [condition]}
        if changed:
            status["updateTimestamp"] = now()
        await self._client.patch(NODEINFOS, node.name, {"status": status}, kind="merge", subresource="status")
