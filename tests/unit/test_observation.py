"""From API objects to a node's view."""

from ipaddress import ip_address, ip_interface

import pytest

from hybridnet.agent.observation import choose_vtep, observe_node, peer_vtep, vtep_info, vtep_mac
from hybridnet.model.address import Family
from hybridnet.model.core import Node, NodeAddress, NodeStatus
from hybridnet.model.instance import NodeInfo, NodeInfoSpec, VTEPInfo
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import AddressRange, Network, NetworkSpec, Subnet, SubnetSpec
from hybridnet.plan.view import Nic

NIC = Nic(
    "eth0", 1500, (ip_interface("172.31.1.9/24"), ip_interface("172.31.0.11/24"), ip_interface("fd31::11/64"))
)


def node(*addresses: str, uid: str = "node-uid") -> Node:
    entries = tuple(NodeAddress(type="InternalIP", address=a) for a in addresses)
    return Node(metadata=ObjectMeta(name="n1", uid=uid), status=NodeStatus(addresses=entries))


def network(name: str, **spec: object) -> Network:
    return Network(metadata=ObjectMeta(name=name), spec=NetworkSpec(**spec))  # type: ignore[arg-type]


def subnet(name: str, of: str, cidr: str, **fields: str) -> Subnet:
    version = "6" if ":" in cidr else "4"
    spec = SubnetSpec(network=of, range=AddressRange(version=version, cidr=cidr, **fields))
    return Subnet(metadata=ObjectMeta(name=name), spec=spec)


@pytest.mark.spec("T78")
def test_the_tunnel_endpoint_is_an_address_of_the_node_object_not_the_first_of_the_nic() -> None:
    vtep = choose_vtep(node("fd31::11", "172.31.0.11"), NIC)
    assert vtep is not None
    assert vtep.address == ip_address("172.31.0.11")
    assert [str(a) for a in vtep.local_addresses] == ["172.31.0.11", "fd31::11"]
    assert choose_vtep(node("10.0.0.1"), NIC) is None


def test_the_tunnel_mac_is_stable_local_unicast_and_different_per_node() -> None:
    macs = [vtep_mac(f"uid-{i}") for i in range(500)]
    assert macs == [vtep_mac(f"uid-{i}") for i in range(500)]
    assert len(set(macs)) == 500
    assert all(int(m[:2], 16) & 3 == 2 for m in macs)


def test_what_is_published_is_what_peers_read() -> None:
    vtep = choose_vtep(node("172.31.0.11", "fd31::11"), NIC)
    assert vtep is not None
    info = NodeInfo(metadata=ObjectMeta(name="n1"), spec=NodeInfoSpec(vtep_info=vtep_info(vtep)))
    assert peer_vtep(info) == vtep


@pytest.mark.parametrize("mac", ["01:00:00:00:00:01", "02:00:00", "zz:00:00:00:00:00", ""])
def test_a_peer_with_a_hostile_or_broken_mac_is_no_peer(mac: str) -> None:
    info = NodeInfo(
        metadata=ObjectMeta(name="n2"),
        spec=NodeInfoSpec(vtep_info=VTEPInfo(ip="172.31.0.12", mac=mac, local_ips=("172.31.0.12",))),
    )
    assert peer_vtep(info) is None


@pytest.mark.spec("F6")
def test_bad_objects_become_problems_and_the_rest_is_planned() -> None:
    networks = [network("overlay", type="Overlay", net_id=4), network("odd", type="Sideways")]
    subnets = [
        subnet("good", "overlay", "100.64.0.0/16"),
        subnet("broken", "overlay", "100.64.0.0/99"),
        subnet("orphan", "nowhere", "10.0.0.0/24"),
        subnet("outside", "overlay", "10.1.0.0/24", gateway="10.2.0.1"),
    ]
    view = observe_node(node("172.31.0.11"), networks, subnets, NIC, (), frozenset(Family))
    assert [s.name for s in view.subnets] == ["good"]
    assert view.vni == 4
    assert {(p.kind, p.name) for p in view.problems} == {
        ("Network", "odd"),
        ("Subnet", "broken"),
        ("Subnet", "orphan"),
        ("Subnet", "outside"),
    }
    assert all(p.name in p.message for p in view.problems)
