"""Where each kind lives in the API: group, version, plural, scope."""

from typing import Generic, TypeVar

from msgspec import Struct

from hybridnet.model import core, instance, network
from hybridnet.model.meta import KubeObject

T = TypeVar("T", bound=KubeObject)

GROUP = "networking.alibaba.com"


class Resource(Struct, Generic[T], frozen=True):
    """A kind and its address in the API."""

    type: type[T]
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """``group/version``, or ``version`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """The URL path of the collection or of one object; no namespace means all of them."""
        prefix = f"/apis/{self.group}" if self.group else "/api"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = f"/{name}" if name else ""
        return f"{prefix}/{self.version}{scope}/{self.plural}{tail}"


NETWORKS = Resource(network.Network, GROUP, "v1", "networks", "Network", namespaced=False)
SUBNETS = Resource(network.Subnet, GROUP, "v1", "subnets", "Subnet", namespaced=False)
IPINSTANCES = Resource(instance.IPInstance, GROUP, "v1", "ipinstances", "IPInstance", namespaced=True)
NODEINFOS = Resource(instance.NodeInfo, GROUP, "v1", "nodeinfoes", "NodeInfo", namespaced=False)
IPBLOCKS = Resource(instance.IPBlock, GROUP, "v1", "ipblocks", "IPBlock", namespaced=False)
PODS = Resource(core.Pod, "", "v1", "pods", "Pod", namespaced=True)
NODES = Resource(core.Node, "", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource(core.Namespace, "", "v1", "namespaces", "Namespace", namespaced=False)
EVENTS = Resource(core.Event, "", "v1", "events", "Event", namespaced=True)
LEASES = Resource(core.Lease, "coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
