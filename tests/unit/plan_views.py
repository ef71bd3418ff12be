"""Views for the tests of plans: small constructors with the values that most tests share."""

from ipaddress import ip_address, ip_interface, ip_network

from hybridnet.model.address import Family
from hybridnet.model.network import NetworkMode, NetworkType
from hybridnet.plan.view import Nic, NodeView, SubnetView, Vtep


def subnet(name: str, cidr: str, **changes: object) -> SubnetView:
    network = ip_network(cidr)
    overlay = changes.pop("overlay", False)
    gateway = changes.pop("gateway", "")
    excluded = changes.pop("excluded", ())
    values: dict[str, object] = {
        "name": name,
        "network": "overlay" if overlay else "underlay",
        "type": NetworkType.OVERLAY if overlay else NetworkType.UNDERLAY,
        "mode": NetworkMode.VXLAN if overlay else NetworkMode.VLAN,
        "created": "",
        "cidr": network,
        "first": network.network_address + 1,
        "last": network.broadcast_address - (1 if network.version == 4 else 0),
        "excluded": frozenset(ip_address(a) for a in excluded),
        "gateway": ip_address(gateway) if gateway else None,
        "net_id": 4 if overlay else 0,
        "auto_nat": True,
        "bridge": "",
        "attached": True,
    }
    for key in ("first", "last"):
        if key in changes:
            changes[key] = ip_address(changes[key])
    return SubnetView(**{**values, **changes})  # type: ignore[arg-type]


def view(*subnets: SubnetView, **changes: object) -> NodeView:
    values: dict[str, object] = {
        "name": "n1",
        "families": frozenset(Family),
        "nic": Nic("eth0", 1500, (ip_interface("172.31.0.11/24"), ip_interface("fd31::11/64"))),
        "bridges": (),
        "subnets": subnets,
        "vni": 4,
        "vtep": peer("n1", 11),
    }
    return NodeView(**{**values, **changes})  # type: ignore[arg-type]


def peer(name: str, number: int) -> Vtep:
    v4, v6 = ip_address(f"172.31.0.{number}"), ip_address(f"fd31::{number}")
    return Vtep(name, v4, f"02:00:00:00:00:{number:02x}", (v4, v6))
