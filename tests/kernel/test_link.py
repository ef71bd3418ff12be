"""Devices as ``ip`` shows them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from hybridnet.kernel.errors import AlreadyExists, DeviceNotFound, KernelError
from hybridnet.kernel.link import (
    AddressGeneration,
    Devconf,
    Devices,
    change_message,
    create_bridge,
    create_veth,
    delete_link,
    get_link,
    links,
    set_devconf,
    set_group,
    set_mac,
    set_master,
    set_mtu,
    set_up,
)
from tests.kernel.netns import Net

MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def shown(net: Net, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(net.ip(f"-j -d link show dev {name}"))[0]
    return found


def names(net: Net) -> set[str]:
    return {link["ifname"] for link in json.loads(net.ip("-j link show"))}


@pytest.fixture
def pod(make_net: Callable[[], Net]) -> Net:
    return make_net()


def test_one_request_makes_both_ends_of_a_pod_link(net: Net, pod: Net) -> None:
    create_veth(
        net.rtnl,
        "hybr1",
        peer_name="eth0",
        peer_namespace=pod.namespace,
        mac=MAC,
        peer_mac=PEER_MAC,
        mtu=1430,
        group=0x6879,
        up=True,
        settings=[
            change_message(
                "hybr1",
                alias="default/web-0",
                devconf={Devconf.PROXY_ARP: 1, Devconf.FORWARDING: 1, Devconf.ROUTE_LOCALNET: 1},
                address_generation=AddressGeneration.NONE,
            )
        ],
    )
    host, inside = shown(net, "hybr1"), shown(pod, "eth0")
    assert (host["address"], host["mtu"], host["group"], host["ifalias"]) == (
        MAC,
        1430,
        "26745",
        "default/web-0",
    )
    assert "UP" in host["flags"]
    assert host["inet6_addr_gen_mode"] == "none"
    assert (inside["address"], inside["mtu"]) == (PEER_MAC, 1430)
    assert "UP" not in inside["flags"]
    for knob in ("proxy_arp", "forwarding", "route_localnet"):
        assert net.shell("cat", f"/proc/sys/net/ipv4/conf/hybr1/{knob}").strip() == "1"
    assert net.shell("cat", "/proc/sys/net/ipv4/conf/lo/proxy_arp").strip() == "0"


@pytest.mark.parametrize("taken", ["host", "pod"])
def test_a_taken_name_leaves_nothing_on_either_side(net: Net, pod: Net, taken: str) -> None:
    (net if taken == "host" else pod).add_device("busy")
    before = names(net), names(pod)
    host_name, peer_name = ("busy", "eth0") if taken == "host" else ("hybr1", "busy")
    with pytest.raises(AlreadyExists):
        create_veth(net.rtnl, host_name, peer_name=peer_name, peer_namespace=pod.namespace)
    assert (names(net), names(pod)) == before


def test_a_failing_setting_leaves_nothing_on_either_side(net: Net, pod: Net) -> None:
    bad = change_message("hybr1", master=4711)
    with pytest.raises(KernelError):
        create_veth(net.rtnl, "hybr1", peer_name="eth0", peer_namespace=pod.namespace, settings=[bad])
    assert (names(net), names(pod)) == ({"lo"}, {"lo"})


def test_deleting_takes_the_peer_along_and_is_no_error_twice(net: Net, pod: Net) -> None:
    create_veth(net.rtnl, "hybr1", peer_name="eth0", peer_namespace=pod.namespace)
    delete_link(net.rtnl, "hybr1")
    delete_link(net.rtnl, "hybr1")
    delete_link(net.rtnl, 4711)
    assert names(pod) == {"lo"}


def test_a_device_is_changed_by_name_and_by_index(net: Net) -> None:
    net.add_device("nic")
    set_mtu(net.rtnl, "nic", 1400)
    set_mac(net.rtnl, "nic", MAC)
    set_group(net.rtnl, net.index_of("nic"), 7)
    set_up(net.rtnl, net.index_of("nic"), up=False)
    set_devconf(net.rtnl, "nic", {Devconf.RP_FILTER: 2}, AddressGeneration.NONE)
    found = shown(net, "nic")
    assert (found["mtu"], found["address"], found["group"]) == (1400, MAC, "7")
    assert "UP" not in found["flags"]
    assert found["inet6_addr_gen_mode"] == "none"
    assert net.shell("cat", "/proc/sys/net/ipv4/conf/nic/rp_filter").strip() == "2"
    net.rtnl.request(change_message(net.index_of("nic"), rename="nic2"))
    assert "nic2" in names(net)


def test_a_change_leaves_alone_what_it_does_not_name(net: Net) -> None:
    net.add_device("nic")
    set_group(net.rtnl, "nic", 7)
    before = shown(net, "nic")
    set_mtu(net.rtnl, "nic", before["mtu"])
    assert shown(net, "nic") == before


def test_a_bridge_gets_and_loses_a_port(net: Net) -> None:
    create_bridge(net.rtnl, "br0", mac=MAC, mtu=1400)
    net.add_device("port")
    set_master(net.rtnl, "port", net.index_of("br0"))
    assert shown(net, "port")["master"] == "br0"
    assert get_link(net.rtnl, "port").master == net.index_of("br0")
    set_master(net.rtnl, "port", 0)
    assert "master" not in shown(net, "port")


def test_what_is_read_is_what_ip_shows(net: Net) -> None:
    net.add_device("nic")
    create_bridge(net.rtnl, "br0")
    net.ip("link set nic alias uplink group 9")
    for link in links(net.rtnl):
        found = shown(net, link.name)
        assert get_link(net.rtnl, link.index).name == link.name
        assert (link.index, link.mac, link.mtu) == (found["ifindex"], found["address"], found["mtu"])
        assert link.kind == found.get("linkinfo", {}).get("info_kind", "")
        assert link.up == ("UP" in found["flags"])
        assert link.alias == found.get("ifalias", "")
    assert get_link(net.rtnl, "nic").parent == net.index_of("nic-far")
    assert get_link(net.rtnl, "nic").group == 9
    assert get_link(net.rtnl, "nic").carrier
    net.ip("link set nic-far down")
    assert not get_link(net.rtnl, "nic").carrier


def test_an_unknown_device_is_named_in_the_error(net: Net) -> None:
    with pytest.raises(DeviceNotFound, match="nowhere"):
        get_link(net.rtnl, "nowhere")
    with pytest.raises(DeviceNotFound, match="nowhere"):
        set_up(net.rtnl, "nowhere")


def test_the_cache_of_names_follows_after_forgetting(net: Net) -> None:
    net.add_device("nic")
    devices = Devices(net.rtnl)
    first = devices.index("nic")
    assert devices.name(first) == "nic"
    net.ip("link del nic")
    net.add_device("nic")
    assert devices.index("nic") == first
    devices.forget("nic")
    assert devices.index("nic") == get_link(net.rtnl, "nic").index != first
    assert devices.name(first) == ""
    net.ip("link del nic")
    devices.refresh()
    with pytest.raises(DeviceNotFound):
        devices.index("nic")
