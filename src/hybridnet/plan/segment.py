"""Where a subnet's packets enter and leave this node: device, MTU and traffic class.

An underlay class is one per (segment, gateway): its number is a hash of what it stands for, so it survives
restarts without being stored, and older subnets keep theirs when a newer one collides.
"""

from collections.abc import Iterable
from zlib import crc32

from msgspec import Struct

from hybridnet.model.address import Family, IPAddress, family_of
from hybridnet.model.network import NetworkMode, NetworkType
from hybridnet.plan import layout
from hybridnet.plan.view import Nic, NodeView, Problem, SubnetView


class Segment(Struct, frozen=True):
    """What the pods of one subnet need to know on this node."""

    subnet: SubnetView
    device: str
    """Device that frames of this subnet leave the node by."""
    mtu: int
    mark: int
    """Traffic class of packets that come from its pods."""

    @property
    def native(self) -> bool:
        """Whether the pods' addresses live on the device's own segment (ARP and NDP are answered there)."""
        return self.subnet.type is NetworkType.UNDERLAY


def vxlan_name(vni: int) -> str:
    """Name of the tunnel device: ``hybrvx4``; at most 14 characters for the largest VNI."""
    return f"{layout.VXLAN_PREFIX}{vni}"


def vxlan_mtu(nic: Nic, vtep: IPAddress) -> int:
    """What fits into the NIC's MTU after encapsulation."""
    return nic.mtu - layout.VXLAN_OVERHEAD[family_of(vtep)]


def plan_segments(view: NodeView) -> tuple[dict[str, Segment], list[Problem]]:
    """The segments of all subnets that this node serves, by subnet name; what is wrong with the others."""
    segments: dict[str, Segment] = {}
    problems: list[Problem] = []
    slots = underlay_slots(view.subnets)
    for subnet in view.subnets:
        if not subnet.attached or subnet.family not in view.families:
            continue
        result = (
            _overlay(view, subnet) if subnet.type is NetworkType.OVERLAY else _underlay(view, subnet, slots)
        )
        if isinstance(result, Segment):
            segments[subnet.name] = result
        else:
            problems.append(result)
    return segments, problems


def underlay_slots(subnets: Iterable[SubnetView]) -> dict[tuple[Family, str], int]:
    """A slot below UNDERLAY_SLOTS for every (family, segment and gateway) of attached underlay subnets."""
    taken: dict[tuple[Family, str], int] = {}
    for subnet in sorted(subnets, key=lambda s: (s.created, s.name)):
        key = slot_key(subnet)
        if not subnet.attached or subnet.type is not NetworkType.UNDERLAY or key in taken:
            continue
        used = {slot for (family, _), slot in taken.items() if family is subnet.family}
        slot = crc32(key[1].encode()) % layout.UNDERLAY_SLOTS
        while slot in used:
            slot = (slot + 1) % layout.UNDERLAY_SLOTS
        taken[key] = slot
    return taken


def slot_key(subnet: SubnetView) -> tuple[Family, str]:
    """Subnets with the same key share a table: same CIDR, same gateway, same segment."""
    return subnet.family, f"{subnet.cidr} {subnet.gateway} {subnet.net_id} {subnet.bridge}"


def _overlay(view: NodeView, subnet: SubnetView) -> Segment | Problem:
    if view.nic is None or view.vtep is None or view.vni is None:
        return Problem(
            "Subnet",
            subnet.name,
            "NoTunnelEndpoint",
            f"node {view.name} has no VXLAN endpoint for overlay subnet {subnet.name}: none of the Node "
            "object's internal addresses is on the agent's NIC; check the agent's --nic",
        )
    number = layout.CLASS_OVERLAY_NAT if subnet.auto_nat else layout.CLASS_OVERLAY
    return Segment(
        subnet=subnet,
        device=vxlan_name(view.vni),
        mtu=vxlan_mtu(view.nic, view.vtep.address),
        mark=layout.class_mark(number),
    )


def _underlay(view: NodeView, subnet: SubnetView, slots: dict[tuple[Family, str], int]) -> Segment | Problem:
    if subnet.mode not in (NetworkMode.VLAN, NetworkMode.BRIDGE) or subnet.net_id != 0:
        return Problem(
            "Subnet",
            subnet.name,
            "NotSupported",
            f"subnet {subnet.name} of network {subnet.network} asks for mode {subnet.mode} with netID "
            f"{subnet.net_id}: this version serves VLAN with netID 0 (untagged) and Bridge",
        )
    device = view.device(subnet.bridge)
    if device is None:
        wanted = f"bridge {subnet.bridge}" if subnet.bridge else "the NIC that the agent was told to use"
        return Problem(
            "Subnet",
            subnet.name,
            "DeviceNotFound",
            f"subnet {subnet.name}: {wanted} is not on node {view.name}; create it or correct the name",
        )
    number = layout.CLASS_UNDERLAY + slots[slot_key(subnet)]
    return Segment(subnet=subnet, device=device.name, mtu=device.mtu, mark=layout.class_mark(number))
