"""What the kernel must hold for one pod on this node, beside its link.

For each address: the route to the pod's link, the IPv6 gateway on that link, the answers to ARP and NDP on the
tunnel (every pod) and on the segment (underlay pods), and the class of what the pod sends. All of it is a function
of the sandbox record and the segments, so a restart rebuilds it without asking the API server.
"""

from ipaddress import ip_interface

from msgspec import Struct

from hybridnet.model.address import Family, IPInterface, family_of
from hybridnet.plan import layout
from hybridnet.plan.firewall import element, pod_map
from hybridnet.plan.routing import POD_GATEWAY, host_network
from hybridnet.plan.segment import Segment, vxlan_name
from hybridnet.plan.state import KernelObject, LinkAddress, ProxyNeighbour, Route, Scope
from hybridnet.plan.view import NodeView

_GATEWAY_V6 = ip_interface(f"{POD_GATEWAY[Family.V6]}/64")


class PodAddress(Struct, frozen=True):
    """One address of a pod with the subnet that it came from."""

    address: IPInterface
    subnet: str

    @property
    def family(self) -> Family:
        """IP version."""
        return family_of(self.address)


class Endpoint(Struct, frozen=True):
    """A pod's interface on this node, as recorded when it was made."""

    container: str
    interface: str
    """Name inside the pod (CNI_IFNAME)."""
    device: str
    """Name of the host side."""
    namespace: str
    pod: str
    uid: str
    mac: str
    mtu: int
    netns: str
    addresses: tuple[PodAddress, ...]

    @property
    def scope(self) -> str:
        """Name under which its kernel objects are applied and removed."""
        return f"pod/{self.container}/{self.interface}"


class EndpointPlan(Struct, frozen=True):
    """Kernel objects of an endpoint, and its elements of our nftables maps (map name, key, data)."""

    objects: tuple[KernelObject, ...] = ()
    elements: tuple[tuple[str, str, str], ...] = ()


def plan_endpoint(endpoint: Endpoint, view: NodeView, segments: dict[str, Segment]) -> EndpointPlan:
    """The desired state for an endpoint; addresses of subnets that this node no longer serves are left out."""
    objects: list[KernelObject] = []
    elements: list[tuple[str, str, str]] = []
    tunnel = vxlan_name(view.vni) if view.vni is not None and view.vtep is not None else ""
    for pod in endpoint.addresses:
        segment = segments.get(pod.subnet)
        if segment is None:
            continue
        address = pod.address.ip
        objects.append(
            Route(
                layout.TABLE_LOCAL,
                host_network(address),
                endpoint.device,
                source=view.source(pod.family),
            )
        )
        if tunnel:
            objects.append(ProxyNeighbour(tunnel, address))
        if segment.native:
            objects.append(ProxyNeighbour(segment.device, address))
        if pod.family is Family.V6:
            objects.append(LinkAddress(endpoint.device, _GATEWAY_V6, Scope.LINK))
        elements.append((pod_map(pod.family), element(address), f"0x{segment.mark:08x}"))
    return EndpointPlan(tuple(objects), tuple(elements))
