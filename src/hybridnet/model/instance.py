"""IPInstance, IPBlock and NodeInfo: who holds an address, the claim behind it, and how a node is reached.

An address is given when an :class:`IPBlock` update that names its owner has succeeded (compare-and-swap on
``resourceVersion``); the IPInstance written afterwards is the public record and what the node's agent reads.
One claim object per address was rejected: restart would read 100,000 objects instead of a few hundred.
"""

from typing import Annotated, Self

from msgspec import Struct, field

from hybridnet.model.meta import BY_TYPE, ApiStruct, Condition, KubeObject, doc


class Address(ApiStruct, frozen=True, kw_only=True):
    """One address of a pod, as allocated. Never changes after creation."""

    version: Annotated[str, doc('IP version: "4" or "6".')]
    ip: Annotated[str, doc("Address and prefix length of the subnet, for example 192.168.56.7/24.")]
    mac: Annotated[str, doc("MAC of the pod's interface; the same for both families.")]
    gateway: Annotated[str, doc("Gateway of the subnet.")] = ""
    net_id: Annotated[int | None, doc("Effective VLAN id, VNI or AS number.", format="int64")] = field(
        default=None, name="netID"
    )


class ReferredObject(ApiStruct, frozen=True, kw_only=True):
    """The object that an address belongs to."""

    kind: Annotated[str, doc("Kind of the owner, for example Pod or StatefulSet.")] = ""
    name: Annotated[str, doc("Its name.")] = ""
    uid: Annotated[str, doc("Its UID.")] = ""


class StatefulBinding(ApiStruct, frozen=True, kw_only=True):
    """Position within a stateful workload."""

    index: Annotated[int | None, doc("Ordinal of the pod.")] = None


class Binding(ApiStruct, frozen=True, kw_only=True):
    """Who holds the address now. An empty nodeName means: reserved, held by nobody."""

    referred_object: Annotated[ReferredObject, doc("The controlling owner.")] = field(
        default_factory=ReferredObject
    )
    node_name: Annotated[str, doc("Node of the pod; empty when reserved.")] = ""
    pod_uid: Annotated[str, doc("UID of the pod.")] = field(default="", name="podUID")
    pod_name: Annotated[str, doc("Name of the pod.")] = ""
    stateful: Annotated[StatefulBinding | None, doc("Only for stateful workloads.")] = None


class IPInstanceSpec(ApiStruct, frozen=True, kw_only=True):
    """The allocation."""

    network: Annotated[str, doc("Network of the address.")]
    subnet: Annotated[str, doc("Subnet of the address.")]
    address: Annotated[Address, doc("The address.")]
    binding: Annotated[Binding, doc("Its holder.")] = field(default_factory=Binding)


class IPInstanceStatus(ApiStruct, frozen=True, kw_only=True):
    """What the node's agent did with it."""

    node_name: Annotated[str, doc("Node that serves the address.")] = ""
    pod_name: Annotated[str, doc("Pod that uses the address.")] = ""
    pod_namespace: Annotated[str, doc("Namespace of that pod.")] = ""
    sandbox_id: Annotated[str, doc("Container runtime's sandbox.")] = field(default="", name="sandboxID")
    update_timestamp: Annotated[str | None, doc("When the agent last reported.", format="date-time")] = None


class IPInstance(KubeObject, frozen=True, kw_only=True):
    """One address of one pod. Its name is the address, see ``address.instance_name``."""

    spec: IPInstanceSpec
    status: IPInstanceStatus | None = None

    @property
    def reported(self) -> bool:
        """Whether an agent says that it serves the address."""
        return bool(self.status and self.status.sandbox_id)

    @property
    def seniority(self) -> tuple[bool, str, str]:
        """Sort key among the instances of one pod and family: the first is kept, so every manager and every
        agent decides alike. One that an agent serves, else the oldest, else by name.
        """
        return not self.reported, self.metadata.creation_timestamp or "", self.name


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """Who holds one offset of a block: the UID of the pod (or of the retaining owner), and the node that serves
    the address, empty when it is reserved.

    On the wire it is one text, ``UID node``: the API server checks and copies a block at every claim, and with an
    object per claim that took 37 ms of its CPU for a full block, with texts it takes 7.
    """

    uid: str
    node: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The claim that *text* stands for."""
        uid, _, node = text.partition(" ")
        return cls(uid=uid, node=node)

    def __str__(self) -> str:
        return f"{self.uid} {self.node}" if self.node else self.uid


class IPBlockSpec(ApiStruct, frozen=True, kw_only=True):
    """256 aligned addresses (an IPv4 /24, an IPv6 /120), whatever subnets lie in it."""

    cidr: Annotated[str, doc("The block's address space.", maxLength=49)]
    claims: Annotated[
        dict[str, str],
        doc(
            "Offset within the block (decimal) to its holder: UID, space, node. No node: reserved.",
            **{"maxProperties": 256, "x-kubernetes-map-type": "atomic"},
        ),
    ] = field(default_factory=dict)


class IPBlock(KubeObject, frozen=True, kw_only=True):
    """The claims on 256 addresses. Written only by compare-and-swap."""

    spec: IPBlockSpec

    def holder(self, offset: int) -> Claim | None:
        """Who holds the address at *offset*."""
        text = self.spec.claims.get(str(offset))
        return None if text is None else Claim.parse(text)


class VTEPInfo(ApiStruct, frozen=True, kw_only=True):
    """Where VXLAN frames for a node's pods go."""

    ip: Annotated[str, doc("Outer address of the tunnel endpoint.")] = ""
    mac: Annotated[str, doc("Inner MAC of the tunnel endpoint.")] = ""
    local_ips: Annotated[tuple[str, ...], doc("Addresses of the node, sorted.")] = field(
        default=(), name="localIPs"
    )


class NodeInfoSpec(ApiStruct, frozen=True, kw_only=True):
    """Written by the node's agent."""

    vtep_info: Annotated[VTEPInfo | None, doc("VXLAN tunnel endpoint.")] = None


class NodeInfoStatus(ApiStruct, frozen=True, kw_only=True):
    """Health of the node's data plane."""

    update_timestamp: Annotated[str | None, doc("When spec changed.", format="date-time")] = None
    conditions: Annotated[tuple[Condition, ...], doc("What the agent could not do, and why.", **BY_TYPE)] = ()


class NodeInfo(KubeObject, frozen=True, kw_only=True):
    """A node as the others need to know it. Named after its Node, owned by it."""

    spec: NodeInfoSpec = field(default_factory=NodeInfoSpec)
    status: NodeInfoStatus | None = None
