"""What the kernel must hold for one pod."""

from ipaddress import ip_address, ip_interface

import pytest

from hybridnet.plan import layout
from hybridnet.plan.endpoint import Endpoint, PodAddress, plan_endpoint
from hybridnet.plan.segment import plan_segments
from hybridnet.plan.state import LinkAddress, ProxyNeighbour, Route
from hybridnet.plan.view import NodeView
from tests.unit.plan_views import subnet, view

SUBNETS = (
    subnet("o4", "100.64.0.0/16", overlay=True),
    subnet("o6", "fd64::/112", overlay=True),
    subnet("c4", "100.65.0.0/16", overlay=True, auto_nat=False),
    subnet("u4", "172.31.1.0/24", gateway="172.31.1.1"),
    subnet("u6", "fd31:1::/64", gateway="fd31:1::1"),
)
ADDRESS = {
    "o4": "100.64.0.9/16",
    "o6": "fd64::9/112",
    "c4": "100.65.0.9/16",
    "u4": "172.31.1.9/24",
    "u6": "fd31:1::9/64",
}


def endpoint(*subnets: str) -> Endpoint:
    addresses = tuple(PodAddress(ip_interface(ADDRESS[s]), s) for s in subnets)
    return Endpoint("c", "eth0", "hybr0", "ns", "p", "u", "02:12:34:00:00:01", 1450, "/n", addresses)


def plan(node: NodeView, *subnets: str) -> tuple[set[object], dict[str, tuple[str, str]]]:
    """The objects, and the class of each address by its text."""
    segments, _ = plan_segments(node)
    made = plan_endpoint(endpoint(*subnets), node, segments)
    return set(made.objects), {key: (name, data) for name, key, data in made.elements}


@pytest.mark.spec("T07", "T17")
@pytest.mark.parametrize("name", ADDRESS)
def test_every_address_has_its_route_with_the_nodes_own_source(name: str) -> None:
    objects, _ = plan(view(*SUBNETS), name)
    (route,) = (o for o in objects if isinstance(o, Route))
    address = ip_interface(ADDRESS[name]).ip
    assert (route.table, route.device) == (layout.TABLE_LOCAL, "hybr0")
    assert route.destination.network_address == address
    assert route.destination.prefixlen == address.max_prefixlen
    assert route.source == ip_address("172.31.0.11" if address.version == 4 else "fd31::11")


@pytest.mark.parametrize(
    ("name", "devices"), [("o4", {"hybrvx4"}), ("u4", {"hybrvx4", "eth0"}), ("u6", {"hybrvx4", "eth0"})]
)
def test_the_node_answers_for_every_pod_on_the_tunnel_and_for_underlay_pods_on_their_segment(
    name: str, devices: set[str]
) -> None:
    objects, _ = plan(view(*SUBNETS), name)
    proxies = {o for o in objects if isinstance(o, ProxyNeighbour)}
    assert proxies == {ProxyNeighbour(device, ip_interface(ADDRESS[name]).ip) for device in devices}


def test_the_ipv6_gateway_is_on_the_link_of_pods_with_an_ipv6_address() -> None:
    for names, count in ((("o4",), 0), (("o6",), 1), (("o4", "o6"), 1)):
        objects, _ = plan(view(*SUBNETS), *names)
        gateways = [o for o in objects if isinstance(o, LinkAddress)]
        assert len(gateways) == count
        assert all(g.device == "hybr0" and str(g.address).startswith("fe80::ecee") for g in gateways)


@pytest.mark.spec("T43", "T44")
def test_each_address_has_the_class_of_its_own_subnet() -> None:
    _, classes = plan(view(*SUBNETS), "c4", "o6")
    assert classes == {"100.65.0.9": ("pod4", "0x00020000"), "fd64::9": ("pod6", "0x00010000")}
    _, classes = plan(view(*SUBNETS), "u4", "u6")
    marks = [int(data, 16) >> layout.CLASS_SHIFT for _, data in classes.values()]
    assert all(mark >= layout.CLASS_UNDERLAY for mark in marks)


def test_an_address_whose_subnet_is_gone_is_left_out_and_the_others_stay() -> None:
    node = view(*(s for s in SUBNETS if s.name != "o4"))
    objects, classes = plan(node, "o4", "o6")
    assert set(classes) == {"fd64::9"}
    assert not any(isinstance(o, Route) and o.destination.version == 4 for o in objects)


def test_without_a_tunnel_underlay_pods_are_served_all_the_same() -> None:
    objects, classes = plan(view(*SUBNETS, vni=None, vtep=None), "u4")
    assert {o.device for o in objects if isinstance(o, ProxyNeighbour)} == {"eth0"}
    assert set(classes) == {"172.31.1.9"}


def test_a_pod_on_a_named_bridge_is_answered_for_on_that_bridge() -> None:
    bridge = view().nic
    assert bridge is not None
    node = view(
        subnet("b4", "10.1.0.0/24", bridge="br9", gateway="10.1.0.1"),
        bridges=(type(bridge)("br9", 9000),),
        vni=None,
        vtep=None,
    )
    segments, problems = plan_segments(node)
    assert problems == []
    pod = Endpoint(
        "c", "eth0", "hybr0", "ns", "p", "u", "", 9000, "/n", (PodAddress(ip_interface("10.1.0.9/24"), "b4"),)
    )
    made = plan_endpoint(pod, node, segments)
    assert ProxyNeighbour("br9", ip_address("10.1.0.9")) in made.objects
