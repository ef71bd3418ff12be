"""The tunnel device: kept when it fits, changed where it can be, made anew with a reason where not."""

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from hybridnet.kernel.errors import AlreadyExists, DeviceNotFound, InvalidRequest
from hybridnet.kernel.link import Devices, get_link
from hybridnet.kernel.vxlan import ensure_vxlan, read_vxlan
from hybridnet.plan.state import VxlanLink
from tests.kernel.netns import Net

V4 = VxlanLink("ovl", 7, "nic", ip_address("192.0.2.1"), 8472, "02:00:00:00:00:11", 1450)
V6 = replace(V4, local=ip_address("2001:db8::1"), mtu=1430)


@pytest.fixture
def node(net: Net) -> Net:
    net.add_device("nic", "192.0.2.1/24", "2001:db8::1/64")
    return net


@pytest.mark.parametrize("want", [V4, V6])
def test_a_missing_tunnel_is_made_and_then_kept(node: Net, want: VxlanLink) -> None:
    parent = node.index_of("nic")
    assert ensure_vxlan(node.rtnl, want, parent) == "missing"
    shown = node.ip("-d link show ovl")
    assert f"vxlan id 7 local {want.local} dev nic" in shown
    assert "dstport 8472" in shown
    assert "nolearning" in shown
    assert "l2miss" not in shown
    assert "l3miss" not in shown
    assert f"mtu {want.mtu} " in shown
    assert "02:00:00:00:00:11" in shown
    assert "UP" in shown
    assert "alias hybridnet" in shown
    index = node.index_of("ovl")
    assert ensure_vxlan(node.rtnl, want, parent) == ""
    assert node.index_of("ovl") == index
    devices = Devices(node.rtnl)
    devices.refresh()
    assert read_vxlan(get_link(node.rtnl, "ovl"), devices.name) == want


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ("id 8 dev nic local 192.0.2.1 dstport 8472 nolearning", "vni is 8 instead of 7"),
        ("id 7 dev nic local 192.0.2.1 dstport 4789 nolearning", "port is 4789 instead of 8472"),
        (
            "id 7 dev nic local 192.0.2.9 dstport 8472 nolearning",
            "local address is 192.0.2.9 instead of 192.0.2.1",
        ),
        ("id 7 dev nic local 2001:db8::1 dstport 8472 nolearning", "local address is 2001:db8::1 instead of"),
        ("id 7 local 192.0.2.1 dstport 8472 nolearning", "parent index is 0 instead of"),
        ("id 7 dev nic local 192.0.2.1 dstport 8472", "learning is True instead of False"),
        ("id 7 dev nic local 192.0.2.1 dstport 8472 nolearning l3miss", "l3miss is True"),
        ("id 7 dev nic local 192.0.2.1 dstport 8472 nolearning l2miss", "l2miss is True"),
        (
            "id 7 dev nic local 192.0.2.1 dstport 8472 nolearning remote 192.0.2.5",
            "default destination is True",
        ),
    ],
)
def test_a_tunnel_that_differs_is_made_anew_with_the_reason(node: Net, made: str, reason: str) -> None:
    node.ip(f"link add ovl type vxlan {made}")
    node.ip("link set ovl alias hybridnet up")
    devices = Devices(node.rtnl)
    devices.refresh()
    assert read_vxlan(get_link(node.rtnl, "ovl"), devices.name) != V4
    index = node.index_of("ovl")
    assert reason in ensure_vxlan(node.rtnl, V4, node.index_of("nic"))
    assert node.index_of("ovl") != index
    assert ensure_vxlan(node.rtnl, V4, node.index_of("nic")) == ""


@pytest.mark.parametrize("change", ["mtu 1300", "address 02:00:00:00:00:99", "down", "alias stranger"])
def test_what_can_be_changed_in_place_is(node: Net, change: str) -> None:
    parent = node.index_of("nic")
    ensure_vxlan(node.rtnl, V4, parent)
    index = node.index_of("ovl")
    devices = Devices(node.rtnl)
    devices.refresh()
    node.ip(f"link set ovl {change}")
    assert read_vxlan(get_link(node.rtnl, "ovl"), devices.name) != V4
    assert ensure_vxlan(node.rtnl, V4, parent) == ""
    assert node.index_of("ovl") == index
    assert read_vxlan(get_link(node.rtnl, "ovl"), devices.name) == V4


@pytest.mark.parametrize(
    "made", ["type vxlan id 9 dev nic local 192.0.2.1 dstport 8472", "type bridge", "type veth peer name far"]
)
def test_a_foreign_device_of_the_name_is_not_touched(node: Net, made: str) -> None:
    node.ip(f"link add ovl {made}")
    index = node.index_of("ovl")
    with pytest.raises(AlreadyExists, match=r"ovl: it exists, and .*; something else owns it"):
        ensure_vxlan(node.rtnl, V4, node.index_of("nic"))
    assert node.index_of("ovl") == index


@pytest.mark.parametrize("want", [V4, V6])
def test_an_mtu_that_does_not_fit_is_refused_in_words(node: Net, want: VxlanLink) -> None:
    with pytest.raises(InvalidRequest, match=f"MTU {want.mtu + 1}: nic leaves room for {want.mtu}"):
        ensure_vxlan(node.rtnl, replace(want, mtu=want.mtu + 1), node.index_of("nic"))


def test_a_parent_that_is_gone_is_an_error(node: Net) -> None:
    with pytest.raises(DeviceNotFound):
        ensure_vxlan(node.rtnl, V4, 4711)
