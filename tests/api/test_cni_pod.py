"""What a pod finds in its namespace, and what its packets can do."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.plugin import STOCK_PLUGINS
from hybridnet.lab.processes import wait_for
from hybridnet.model.address import IPAddress
from tests.api.cni_net import Net
from tests.api.cni_objects import CLOSED, OVERLAY, UNDERLAY, mac_of
from tests.api.cni_shim import Sandbox
from tests.api.cni_world import MTU, NODE_ADDRESSES, OUTSIDE, World
from tests.api.patience import SECONDS

MARKER = 0x88B5
"""Ethertype for local experiments (IEEE 802)."""
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
LENGTH = {(OVERLAY, 4): 16, (OVERLAY, 6): 112, (UNDERLAY, 4): 24, (UNDERLAY, 6): 64}


class Attached:
    """A pod that ADD has succeeded for."""

    def __init__(self, sandbox: Sandbox, result: dict[str, Any], addresses: list[IPAddress]) -> None:
        self.net = sandbox.net
        self.sandbox = sandbox
        self.device = str(result["interfaces"][0]["name"])
        self.addresses = addresses


def attach(world: World, pod: str, families: tuple[int, ...], network: str = OVERLAY) -> Attached:
    addresses = world.objects.give(pod, families, network)
    sandbox = world.sandbox(pod)
    result = world.shim.add(sandbox)
    return Attached(sandbox, result, addresses)


def routes(net: Net, family: int) -> set[tuple[str, str, str]]:
    """Destination, gateway and scope of the pod's routes that the kernel did not make by itself."""
    shown = net.show(f"-{family} route show")
    return {
        (entry["dst"], entry.get("gateway", ""), entry.get("scope", ""))
        for entry in shown
        if entry.get("protocol") != "kernel"
    }


@pytest.mark.spec("T17")
@pytest.mark.parametrize("network", [OVERLAY, UNDERLAY])
def test_a_pod_has_its_address_with_the_subnets_length_and_all_goes_to_the_gateway(
    node: World, network: str
) -> None:
    pod = attach(node, "inspected", (4, 6), network)
    (link,) = pod.net.show("address show dev eth0")
    assert link["address"] == mac_of("inspected")
    assert link["operstate"] == "UP"
    found = {(e["local"], e["prefixlen"]) for e in link["addr_info"] if e["scope"] == "global"}
    assert found == {(str(a), LENGTH[network, a.version]) for a in pod.addresses}
    assert all(e.get("noprefixroute") for e in link["addr_info"] if e["scope"] == "global")
    assert routes(pod.net, 4) == {(GATEWAY[4], "", "link"), ("default", GATEWAY[4], "global")}
    assert {(dst, via) for dst, via, _ in routes(pod.net, 6)} == {("default", GATEWAY[6])}
    kernels = {entry["dst"] for entry in pod.net.show("-6 route show")} - {"default"}
    assert kernels <= {"fe80::/64"}


@pytest.mark.spec("T18")
def test_an_ipv6_address_can_be_used_when_add_returns(node: World) -> None:
    pod = attach(node, "prompt", (6,))
    (link,) = pod.net.show("address show dev eth0")
    (entry,) = [e for e in link["addr_info"] if e["scope"] == "global"]
    assert not entry.get("tentative")
    assert not entry.get("dadfailed")
    assert routes(pod.net, 4) == set()
    assert pod.net.pings(str(NODE_ADDRESSES[1]).split("/")[0])


@pytest.mark.spec("T44")
@pytest.mark.parametrize("family", [4, 6])
def test_a_pod_of_one_family_has_nothing_of_the_other(node: World, family: int) -> None:
    before = node.state()
    pod = attach(node, "single", (family,))
    other = 10 - family
    assert routes(pod.net, other) == set()
    (link,) = pod.net.show("address show dev eth0")
    kinds = {e["family"] for e in link["addr_info"] if e["scope"] == "global"}
    assert kinds == {"inet" if family == 4 else "inet6"}
    new = {word for word in node.state() - before if word.split()[0] in ("route", "proxy", "element")}
    assert all((":" in word) == (family == 6) for word in new)


@pytest.mark.spec("T19")
@pytest.mark.parametrize(("network", "mtu"), [(OVERLAY, MTU - 50), (UNDERLAY, MTU)])
def test_the_mtu_leaves_room_for_the_tunnel_where_there_is_one(node: World, network: str, mtu: int) -> None:
    pod = attach(node, "sized", (4, 6), network)
    assert pod.net.link("eth0")["mtu"] == mtu
    assert node.node.link(pod.device)["mtu"] == mtu
    for address in pod.addresses:
        assert node.node.pings(address, mtu)
        assert not node.node.pings(address, mtu + 1)


@pytest.mark.spec("T19")
def test_the_mtu_counts_the_longer_header_of_an_ipv6_tunnel(node: World) -> None:
    v4, v6 = (a.split("/")[0] for a in NODE_ADDRESSES)
    node.objects.set_node_addresses([v6])
    try:
        node.eventually("the tunnel is IPv6", lambda: node.node.link("hybrvx4").get("mtu") == MTU - 70)
        pod = attach(node, "sized", (4, 6))
        assert pod.net.link("eth0")["mtu"] == MTU - 70
        for address in pod.addresses:
            assert node.node.pings(address, MTU - 70)
            assert not node.node.pings(address, MTU - 69)
    finally:
        node.objects.set_node_addresses([v4, v6])
    node.eventually("the tunnel is IPv4", lambda: node.node.link("hybrvx4").get("mtu") == MTU - 50)
    node.eventually("the pod has its proxies", lambda: len([w for w in node.state() if "hybrvx4" in w]) == 2)


@contextmanager
def captured(net: Net, device: str, expression: str, folder: Path) -> Iterator[list[str]]:
    """What passes *device* meanwhile, as tcpdump prints it, after the block. A frame of ours marks the end."""
    lines: list[str] = []
    log, errors = folder / f"{device}.txt", folder / f"{device}.err"
    command = ["tcpdump", "-lnni", device, "--immediate-mode", f"({expression}) or ether proto {MARKER:#x}"]
    with log.open("wb") as output, errors.open("wb") as told:
        process = subprocess.Popen(net.place.wrap(command, pdeathsig=True), stdout=output, stderr=told)

    def is_told(path: Path, words: str) -> bool:
        assert process.poll() is None, errors.read_text()
        return words in path.read_text()

    def has_ended() -> bool:
        with Namespace.open(net.path) as inside, inside.run(lambda: _raw(device)) as channel:
            channel.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=GATEWAY_MAC, type=MARKER) / bytes(46)))
        return is_told(log, f"{MARKER:#x}")

    try:
        wait_for("tcpdump", lambda: is_told(errors, "listening on"), timeout=SECONDS)
        yield lines
        wait_for("the last frame", has_ended, timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    lines += [line for line in log.read_text().splitlines() if line and f"{MARKER:#x}" not in line]


@pytest.mark.spec("T20", "T21")
def test_the_first_packet_waits_for_no_neighbour_resolution(node: World, tmp_path: Path) -> None:
    pod = attach(node, "quick", (4, 6))
    asks = "arp or (icmp6 and ip6[40] == 135) or icmp[0] == 8 or (icmp6 and ip6[40] == 128)"
    assert node.node.show("route show default") == []
    with captured(node.node, pod.device, asks, tmp_path) as lines:
        for target in NODE_ADDRESSES:
            assert pod.net.pings(target.split("/")[0])
    requests = [line for line in lines if "echo request" in line]
    assert len(requests) == 2
    gateways = [line for line in lines if any(f"who has {g}" in line for g in GATEWAY.values())]
    assert gateways == []


@pytest.mark.spec("T20", "T21")
def test_the_gateway_answers_a_pod_that_has_lost_its_neighbour_entry(node: World) -> None:
    pod = attach(node, "forgetful", (4, 6))
    pod.net.ip(*(f"neighbour delete {g} dev eth0" for g in GATEWAY.values()))
    for target in NODE_ADDRESSES:
        assert pod.net.pings(target.split("/")[0])


@pytest.mark.spec("T25", "T29")
@pytest.mark.parametrize("networks", [(OVERLAY, OVERLAY), (OVERLAY, UNDERLAY), (UNDERLAY, UNDERLAY)])
def test_pods_of_one_node_reach_each_other_directly(
    node: World, networks: tuple[str, str], tmp_path: Path
) -> None:
    one, two = (attach(node, f"pair{n}", (4, 6), network) for n, network in enumerate(networks))
    with captured(node.node, "eth0", "icmp or icmp6 or udp port 8472", tmp_path) as lines:
        for pod, other in ((one, two), (two, one)):
            for address in other.addresses:
                assert pod.net.pings(
                    address, pod.net.link("eth0")["mtu"] if networks[0] == networks[1] else 84
                )
    assert not any("echo" in line or "VXLAN" in line for line in lines), lines


@pytest.fixture
def routed(node: World) -> Iterator[World]:
    """The node has default routes; the router does not know pods."""
    node.node.ip("route add default via 172.31.0.1", "route add ::/0 via fd31::1 dev eth0")
    yield node
    node.node.ip("route delete default via 172.31.0.1", "route delete ::/0 via fd31::1 dev eth0")


@pytest.mark.spec("T41", "T43")
def test_what_leaves_the_cluster_is_masqueraded_or_refused_as_the_subnet_says(
    routed: World, tmp_path: Path
) -> None:
    open_pod = attach(routed, "open", (4, 6))
    closed_pod = attach(routed, "closed", (4, 6), CLOSED)
    with captured(routed.router, "eth0", "icmp or icmp6", tmp_path) as lines:
        for target in OUTSIDE:
            assert open_pod.net.pings(target)
            assert not closed_pod.net.pings(target, seconds=1.0)
    requests = [line for line in lines if "echo request" in line]
    assert len(requests) == 2
    for node_address, outside in zip(NODE_ADDRESSES, OUTSIDE, strict=True):
        source = node_address.split("/")[0]
        assert any(f"{source} > {outside}:" in line for line in requests), requests
    for address in closed_pod.addresses:
        assert open_pod.net.pings(address)


@pytest.mark.spec("T41")
def test_a_pod_that_may_not_leave_hears_so_at_once(routed: World, tmp_path: Path) -> None:
    pod = attach(routed, "closed", (4, 6), CLOSED)
    with captured(routed.node, pod.device, "icmp[0] == 3 or (icmp6 and ip6[40] == 1)", tmp_path) as lines:
        for target in OUTSIDE:
            assert not pod.net.pings(target, seconds=1.0)
    assert any("unreachable" in line and "ICMP6" not in line for line in lines), lines
    assert any("unreachable" in line and "ICMP6" in line for line in lines), lines


@pytest.mark.spec("T42")
def test_an_underlay_pod_leaves_by_its_gateway_with_its_own_address(node: World, tmp_path: Path) -> None:
    pod = attach(node, "native", (4, 6), UNDERLAY)
    with captured(node.router, "eth0", "icmp or icmp6", tmp_path) as lines:
        for target in OUTSIDE:
            assert pod.net.pings(target)
    for address, outside in zip(pod.addresses, OUTSIDE, strict=True):
        assert any(f"{address} > {outside}:" in line for line in lines), lines


@pytest.mark.spec("T22")
def test_a_node_without_ipv6_serves_ipv4_pods_and_says_why_not_others(node: World) -> None:
    def switch(value: str) -> None:
        for device in ("all", "default"):
            node.node.sysctl(f"net.ipv6.conf.{device}.disable_ipv6", value)

    node.stop_agent(signal.SIGTERM)
    switch("1")
    try:
        node.start_agent()
        before = node.state()
        pod = attach(node, "old", (4,))
        assert node.node.pings(pod.addresses[0])
        assert pod.net.pings("172.31.0.11")
        node.objects.give("new", (4, 6))
        answer = node.shim.call("ADD", node.sandbox("new"))
        assert (answer.status, answer.code) == (1, 11)
        assert "IPv6 switched off" in answer.message
        log = node.log.read_text()
        assert "not written" not in log
        assert "Traceback" not in log
        node.end_pods()
        assert node.state() == before
    finally:
        node.stop_agent(signal.SIGTERM)
        switch("0")
        node.node.ip(
            "link set eth0 down", "link set eth0 up", f"address replace {NODE_ADDRESSES[1]} dev eth0 nodad"
        )
        node.start_agent()
    dual = attach(node, "both", (4, 6))
    for address in dual.addresses:
        assert node.node.pings(address)


def test_a_pod_reaches_no_service_on_the_loopback_of_its_node(node: World) -> None:
    pod = attach(node, "nosy", (4,))
    with Namespace.open(node.node.path) as host, Namespace.open(pod.net.path) as inside:
        service = host.run(lambda: _bound(("127.0.0.1", 0)))
        port = service.getsockname()[1]
        everywhere = host.run(lambda: _bound(("0.0.0.0", 0)))
        with service, everywhere, inside.run(_raw) as sender:
            sender.send(_udp_frame(str(pod.addresses[0]), "127.0.0.1", port))
            sender.send(_udp_frame(str(pod.addresses[0]), "172.31.0.11", everywhere.getsockname()[1]))
            assert everywhere.recv(100) == b"knock"  # frames of this make do arrive, and after the first one
            service.setblocking(False)
            with pytest.raises(BlockingIOError):
                service.recv(100)


def _bound(address: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(address)
    made.settimeout(10)
    return made


def _raw(device: str = "eth0") -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind((device, 0))
    return made


def _udp_frame(source: str, target: str, port: int) -> bytes:
    """A frame to the gateway, which any container may send that has CAP_NET_RAW, as most have."""
    return bytes(Ether(dst=GATEWAY_MAC) / IP(src=source, dst=target) / UDP(sport=9, dport=port) / b"knock")


@pytest.mark.spec("T16")
def test_the_bandwidth_plugin_shapes_the_host_side_that_the_result_names(node: World) -> None:
    pod = attach(node, "shaped", (4,))
    plugin = STOCK_PLUGINS / "bandwidth"
    result = node.shim.add(pod.sandbox)
    limits = {"ingressRate": 10_000_000, "ingressBurst": 1_000_000}
    base = {"cniVersion": "1.0.0", "name": "hybridnet", "type": "bandwidth"}
    stdin = json.dumps({**base, "prevResult": result, "runtimeConfig": {"bandwidth": limits}})

    def chained(command: str) -> str:
        environment = node.shim.variables(pod.sandbox) | {
            "CNI_COMMAND": command,
            "CNI_PATH": str(STOCK_PLUGINS),
        }
        done = subprocess.run(
            node.node.place.wrap([str(plugin)]),
            input=stdin,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert json.loads(chained("ADD"))["interfaces"] == result["interfaces"]
    shown = json.loads(node.node.shell("tc", "-j", "qdisc", "show", "dev", pod.device))
    assert "tbf" in {entry["kind"] for entry in shown}
    assert node.node.pings(pod.addresses[0])
    chained("DEL")
