"""Announcements, as a neighbour takes them and as scapy reads them."""

import json
import socket
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from hybridnet.kernel.announce import announce, frames
from hybridnet.kernel.errors import DeviceNotFound, Unreachable
from hybridnet.kernel.link import create_veth, set_mac, set_up
from hybridnet.model.address import IPAddress
from tests.kernel.netns import Net

MAC = "02:00:00:00:00:01"
V4, V6 = IPv4Address("10.0.0.5"), IPv6Address("fd00::5")


@pytest.fixture
def neighbour(net: Net, make_net: Callable[[], Net]) -> Net:
    """A host on the segment of *net*'s device ``nic``."""
    other = make_net()
    create_veth(
        net.rtnl,
        "nic",
        peer_name="eth0",
        peer_namespace=other.namespace,
        mac=MAC,
        peer_mac="02:00:00:00:00:02",
    )
    other.ip("link set eth0 up")
    other.ip("address add 10.0.0.9/24 dev eth0")
    other.ip("address add fd00::9/64 dev eth0 nodad")
    net.ip("link set nic up")
    return other


@pytest.mark.parametrize("address", [V4, V6])
def test_a_neighbour_moves_its_entry_to_our_mac_at_once(net: Net, neighbour: Net, address: IPAddress) -> None:
    neighbour.ip(f"neighbour replace {address} lladdr 02:00:00:00:00:77 dev eth0 nud reachable")
    with closing(listen(neighbour)) as heard:
        net.namespace.run(lambda: announce("nic", [address]))
        heard.recv(2000)
    (entry,) = [e for e in json.loads(neighbour.ip("-j neighbour show dev eth0")) if e["dst"] == str(address)]
    assert entry["lladdr"] == MAC


def test_a_neighbour_takes_it_although_the_device_has_no_address_of_the_family(
    net: Net, neighbour: Net
) -> None:
    net.ip("address flush dev nic")
    assert "inet6" not in net.ip("address show dev nic")
    neighbour.ip(f"neighbour replace {V6} lladdr 02:00:00:00:00:77 dev eth0 nud reachable")
    with closing(listen(neighbour)) as heard:
        net.namespace.run(lambda: announce("nic", [V6]))
        heard.recv(2000)
    assert f"{V6} dev eth0 lladdr {MAC}" in neighbour.ip("neighbour show")


def listen(host: Net) -> socket.socket:
    """A packet socket that gets the next ARP packet or neighbour advertisement on ``eth0``."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        sock.bind(("eth0", 0x0003))
        sock.settimeout(10)
        return sock

    return host.namespace.run(opened)


def test_an_arp_announcement_is_as_rfc_5227_says() -> None:
    request, reply = (Ether(frame) for frame in frames(bytes.fromhex("020000000001"), V4))
    for packet, operation in ((request, 1), (reply, 2)):
        assert (packet.src, packet.dst) == (MAC, "ff:ff:ff:ff:ff:ff")
        assert (packet[ARP].op, packet[ARP].hwsrc) == (operation, MAC)
        assert (packet[ARP].psrc, packet[ARP].pdst) == (str(V4), str(V4))
    assert request[ARP].hwdst == "00:00:00:00:00:00"


def test_an_advertisement_is_as_rfc_4861_says() -> None:
    (frame,) = frames(bytes.fromhex("020000000001"), V6)
    packet = Ether(frame)
    assert (packet.src, packet.dst) == (MAC, "33:33:00:00:00:01")
    assert (packet[IPv6].src, packet[IPv6].dst, packet[IPv6].hlim) == (str(V6), "ff02::1", 255)
    advertised = packet[ICMPv6ND_NA]
    assert (advertised.tgt, advertised.R, advertised.S, advertised.O) == (str(V6), 0, 0, 1)
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == MAC
    right = advertised.cksum
    del advertised.cksum
    assert Ether(bytes(packet))[ICMPv6ND_NA].cksum == right


def test_the_mac_is_the_device_s_present_one(net: Net, neighbour: Net) -> None:
    set_mac(net.rtnl, "nic", "02:00:00:00:00:33")
    with closing(listen(neighbour)) as heard:
        net.namespace.run(lambda: announce("nic", [V4]))
        while (packet := Ether(heard.recv(2000))).type != 0x0806:
            pass
    assert packet[ARP].hwsrc == "02:00:00:00:00:33"


def test_a_device_that_cannot_send_is_named(net: Net) -> None:
    with pytest.raises(DeviceNotFound, match="nowhere"):
        net.namespace.run(lambda: announce("nowhere", [V4]))
    net.add_device("nic")
    set_up(net.rtnl, "nic", up=False)
    with pytest.raises(Unreachable, match="nic"):
        net.namespace.run(lambda: announce("nic", [V4]))
