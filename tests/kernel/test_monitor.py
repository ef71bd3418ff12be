"""Notifications of a real kernel, on a real event loop."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from hybridnet.kernel.monitor import DeviceChanged, Monitor, NeighbourMiss, Notice, Overrun, RouteChanged
from hybridnet.kernel.neighbour import set_neighbour
from hybridnet.kernel.route import delete_route, set_route
from hybridnet.model.address import Family
from hybridnet.plan.state import PROTOCOL, Route, RouteType
from tests.kernel.netns import Net

PATIENCE = 20


def watch(net: Net, provoke: Callable[[], object], wanted: Notice) -> list[Notice]:
    """What the monitor told until *wanted* came, after *provoke* ran."""

    async def run() -> list[Notice]:
        seen: list[Notice] = []
        came = asyncio.Event()

        def handle(notice: Notice) -> None:
            seen.append(notice)
            if notice == wanted:
                came.set()

        monitor = Monitor(handle, net.namespace)
        monitor.start()
        try:
            provoke()
            async with asyncio.timeout(PATIENCE):
                await came.wait()
        finally:
            monitor.close()
        return seen

    return asyncio.run(run())


def knock(net: Net, address: str) -> None:
    """Send to an address that nobody has resolved."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with net.namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"?", (address, 9))


@pytest.fixture
def tunnel(net: Net) -> int:
    """A tunnel device that asks user space; its index."""
    net.add_device("nic", "192.0.2.1/24")
    net.ip("link add ovl type vxlan id 7 dev nic local 192.0.2.1 dstport 8472 nolearning")
    for family in ("ipv4", "ipv6"):
        net.shell("sysctl", "-qw", f"net.{family}.neigh.ovl.app_solicit=1")
    net.ip("link set ovl up")
    net.ip("address add 10.0.0.1/24 dev ovl")
    net.ip("address add fd00::1/64 dev ovl nodad")
    return net.index_of("ovl")


@pytest.mark.parametrize("address", ["10.0.0.77", "fd00::77"])
def test_an_unresolved_neighbour_is_a_miss_and_an_answer_is_none(net: Net, tunnel: int, address: str) -> None:
    miss = NeighbourMiss(tunnel, ip_address(address))
    watch(net, lambda: knock(net, address), miss)
    answer = set_neighbour(tunnel, ip_address(address), "02:00:00:00:00:21")

    def answered() -> None:
        net.rtnl.request(answer)
        knock(net, address)
        net.ip("link set nic mtu 1400")

    assert miss not in watch(net, answered, DeviceChanged(net.index_of("nic")))


def test_changes_of_devices_and_addresses_are_told(net: Net) -> None:
    net.add_device("nic")
    changed = DeviceChanged(net.index_of("nic"))
    watch(net, lambda: net.ip("link set nic down"), changed)
    watch(net, lambda: net.ip("address add 10.0.0.1/24 dev nic"), changed)
    watch(net, lambda: net.ip("address add fd00::1/64 dev nic"), changed)
    watch(net, lambda: net.ip("link del nic"), changed)


@pytest.mark.parametrize("prefix", ["10.1.0.0/16", "fd01::/64"])
def test_a_route_tells_its_table_its_protocol_and_who_asked(net: Net, prefix: str) -> None:
    route = Route(39999, ip_network(prefix), type=RouteType.THROW)
    port = net.rtnl.port
    watch(
        net,
        lambda: net.rtnl.request(set_route(route, 0, replace=False)),
        RouteChanged(39999, PROTOCOL, port, removed=False),
    )
    watch(
        net,
        lambda: net.rtnl.request(delete_route(route, 0)),
        RouteChanged(39999, PROTOCOL, port, removed=True),
    )
    net.rtnl.request(set_route(route, 0, replace=False))
    seen = watch(
        net,
        lambda: (net.ip(f"-{route.family} route del {prefix} table 39999"), net.ip("link set lo mtu 9000")),
        DeviceChanged(1),
    )
    (removal,) = [notice for notice in seen if isinstance(notice, RouteChanged) and notice.table == 39999]
    assert removal.removed
    assert removal.protocol == PROTOCOL
    assert removal.port not in (0, port)


@pytest.mark.parametrize("family", Family)
def test_a_rule_that_goes_is_told(net: Net, family: Family) -> None:
    net.ip(f"-{family} rule add priority 2000 lookup 39999 protocol {PROTOCOL}")
    seen = watch(
        net,
        lambda: (net.ip(f"-{family} rule del priority 2000"), net.ip("link set lo mtu 9000")),
        DeviceChanged(1),
    )
    rules = [n for n in seen if isinstance(n, RouteChanged) and n.table == 0]
    assert [(n.protocol, n.removed) for n in rules] == [(PROTOCOL, True)]


@pytest.mark.spec("T76")
def test_lost_notifications_are_told_and_those_after_them_arrive(net: Net) -> None:
    async def run() -> None:
        overrun, after = asyncio.Event(), asyncio.Event()

        def handle(notice: Notice) -> None:
            if notice == Overrun():
                overrun.set()
            elif notice == DeviceChanged(1) and overrun.is_set():
                after.set()

        monitor = Monitor(handle, net.namespace)
        monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        monitor.start()
        routes = [Route(300, ip_network(f"10.0.{n}.0/24"), type=RouteType.THROW) for n in range(200)]
        net.rtnl.batch([set_route(route, 0, replace=False) for route in routes])
        async with asyncio.timeout(PATIENCE):
            await overrun.wait()
            net.ip("link set lo mtu 9000")
            await after.wait()
        monitor.close()

    asyncio.run(run())


def test_a_busy_neighbour_table_wakes_nobody(net: Net, tunnel: int) -> None:
    monitor = Monitor(lambda _: None, net.namespace)
    messages = [
        set_neighbour(tunnel, ip_address(f"10.0.0.{host}"), "02:00:00:00:00:21") for host in range(2, 200)
    ]
    assert not any(net.rtnl.batch(messages))
    with pytest.raises(BlockingIOError):
        monitor._socket.recv(1 << 16)
    monitor.close()
