"""The slices of Kubernetes' own objects that we read or write."""

from msgspec import field

from hybridnet.model.meta import ApiStruct, KubeObject


class ContainerState(ApiStruct, frozen=True, kw_only=True):
    """Only whether it runs or has ended."""

    running: dict[str, str] | None = None
    terminated: dict[str, object] | None = None


class ContainerStatus(ApiStruct, frozen=True, kw_only=True):
    """One container's state."""

    name: str = ""
    state: ContainerState = field(default_factory=ContainerState)


class Container(ApiStruct, frozen=True, kw_only=True):
    """Only its name: to tell whether every container has a status."""

    name: str = ""


class PodSpec(ApiStruct, frozen=True, kw_only=True):
    """Where a pod runs."""

    node_name: str = ""
    host_network: bool = False
    containers: tuple[Container, ...] = ()


class PodStatus(ApiStruct, frozen=True, kw_only=True):
    """How far a pod is."""

    phase: str = ""
    reason: str = ""
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(KubeObject, frozen=True, kw_only=True):
    """core/v1 Pod."""

    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)


class Namespace(KubeObject, frozen=True, kw_only=True):
    """core/v1 Namespace: its annotations and labels are defaults for its pods."""


class NodeAddress(ApiStruct, frozen=True, kw_only=True):
    """One entry of Node.status.addresses."""

    type: str = ""
    address: str = ""


class NodeStatus(ApiStruct, frozen=True, kw_only=True):
    """Addresses of a node."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(KubeObject, frozen=True, kw_only=True):
    """core/v1 Node."""

    status: NodeStatus = field(default_factory=NodeStatus)


class LeaseSpec(ApiStruct, frozen=True, kw_only=True):
    """coordination/v1 LeaseSpec. Times are RFC 3339 with microseconds."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(KubeObject, frozen=True, kw_only=True):
    """coordination/v1 Lease."""

    spec: LeaseSpec = field(default_factory=LeaseSpec)


class ObjectReference(ApiStruct, frozen=True, kw_only=True):
    """core/v1 ObjectReference."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class EventSource(ApiStruct, frozen=True, kw_only=True):
    """core/v1 EventSource."""

    component: str = ""
    host: str = ""


class Event(KubeObject, frozen=True, kw_only=True):
    """core/v1 Event, the kind that ``kubectl describe`` shows."""

    involved_object: ObjectReference = field(default_factory=ObjectReference)
    type: str = ""
    reason: str = ""
    message: str = ""
    source: EventSource = field(default_factory=EventSource)
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    count: int = 0
