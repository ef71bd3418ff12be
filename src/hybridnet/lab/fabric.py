"""The wires: switch, router, external host, and the NIC of every namespace.

Written as ``ip -batch`` text, deliberately not with :mod:`hybridnet.kernel`: the lab judges that code, so it must
not be built with it, and a network engineer reads the text at a glance. The whole fabric is two dozen
processes of a few milliseconds.

The router forwards, sends no redirects and has no way to the internet. Nodes get the settings of a stock
Debian (no forwarding, loose reverse path filter), whatever the machine itself has: namespaces inherit part of it.
"""

import contextlib
from collections.abc import Iterable
from concurrent.futures import Executor
from ipaddress import IPv4Network

import msgspec

from hybridnet.kernel import sysctl
from hybridnet.kernel.namespace import RUN_NETNS, Namespace, create_named, delete_named
from hybridnet.lab.errors import CommandFailed
from hybridnet.lab.processes import run
from hybridnet.lab.topology import Host, Topology, router_interfaces
from hybridnet.model.address import IPInterface
from hybridnet.plan.state import Sysctl

_FORWARDING = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/send_redirects": "0"}
_STOCK = {
    "ipv4/ip_forward": "0",
    "ipv6/conf/all/forwarding": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "2",  # systemd's 50-default.conf
    "ipv4/conf/default/promote_secondaries": "1",
    "ipv4/conf/default/accept_source_route": "0",
    "ipv4/conf/all/route_localnet": "0",
}
_NO_DAD = {"ipv6/conf/default/accept_dad": "0"}
"""Every address here is known to be unique; detection would cost a second per start."""
_OF_ROLE = {
    "router": {**_FORWARDING, **_NO_DAD, "ipv4/conf/default/rp_filter": "0", "ipv4/conf/all/rp_filter": "0"},
    "switch": {"ipv6/conf/default/disable_ipv6": "1", "bridge/bridge-nf-call-iptables": "0"},
}
_MODULES = ("overlay", "nf_conntrack", "br_netfilter")
"""kube-proxy sets sysctls of the second, the bridge plugin's Services need the third."""
_OF_HOST = {**_STOCK, **_NO_DAD}


def create(topology: Topology, executor: Executor) -> None:
    """Make all namespaces, cables and addresses. AlreadyExists, CommandFailed; :func:`delete` cleans up."""
    _load_modules()
    for role in topology.roles:
        create_named(topology.namespace(role))
        _set_sysctls(topology, role)
    _batch((), cabling(topology))
    jobs = [
        executor.submit(_batch, ("-n", topology.namespace(role)), lines) for role, lines in settings(topology)
    ]
    for job in jobs:
        job.result()


def delete(prefix: str) -> None:
    """Remove every namespace whose name begins with *prefix* and a hyphen; no error when there is none."""
    for path in sorted(RUN_NETNS.glob(f"{prefix}-*")):
        delete_named(path.name)


def cabling(topology: Topology) -> list[str]:
    """``ip`` commands, for the root namespace, that make all veth pairs, each end in its place."""
    switch, router = topology.namespace("switch"), topology.namespace("router")
    external, cp = topology.namespace("external"), topology.namespace("cp")
    commands = [
        f"link add eth1 netns {router} type veth peer name eth0 netns {external}",
        f"link add {topology.prefix} type veth peer name host netns {cp}",
        f"address add {topology.management[0]} dev {topology.prefix}",
        f"link set {topology.prefix} up",
    ]
    commands += [
        f"link add eth0 netns {topology.namespace(role)} type veth peer name {role} netns {switch}"
        for role in _plugged(topology)
    ]
    return commands


def settings(topology: Topology) -> list[tuple[str, list[str]]]:
    """``ip`` commands for the inside of each namespace, by role."""
    switch = ["link add br0 type bridge mcast_snooping 0", "link set br0 up"]
    switch += [f"link set {role} master br0 up" for role in _plugged(topology)]
    inner, outer = router_interfaces()
    router = [*_addresses("eth0", inner), *_addresses("eth1", outer)]
    result = [("switch", switch), ("router", ["link set lo up", *router])]
    result += [(host.role, _host(host)) for host in topology.hosts]
    management = [f"address add {topology.management[1]} dev host", "link set host up"]
    return [(role, [*lines, *management] if role == "cp" else lines) for role, lines in result]


def used_networks() -> list[IPv4Network]:
    """IPv4 networks that the root namespace has routes to, the default route aside."""
    routes = msgspec.json.decode(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or b"[]")
    return [IPv4Network(route["dst"], strict=False) for route in routes if route["dst"][0].isdigit()]


def _plugged(topology: Topology) -> tuple[str, ...]:
    """The roles whose eth0 is in the switch."""
    return ("router", "cp", *topology.node_names)


def _host(host: Host) -> list[str]:
    routes = [f"route add default via {gateway}" for gateway in host.gateways]
    return ["link set lo up", *_addresses("eth0", host.addresses), *routes]


def _addresses(device: str, addresses: Iterable[IPInterface]) -> list[str]:
    return [*(f"address add {address} dev {device}" for address in addresses), f"link set {device} up"]


def _load_modules() -> None:
    """Load what does not load on use. A kernel that has it built in, or no modules, needs nothing of this."""
    with contextlib.suppress(CommandFailed):
        run(["modprobe", "--all", "--quiet", *_MODULES], check=False)


def _batch(options: tuple[str, ...], commands: Iterable[str]) -> None:
    run(["ip", *options, "-batch", "-"], stdin="\n".join([*commands, ""]).encode())


def _set_sysctls(topology: Topology, role: str) -> None:
    wanted = _OF_ROLE.get(role, _OF_HOST)
    with Namespace.open(topology.namespace_path(role)) as namespace:
        for path, value in wanted.items():  # bridge/... is there only with the br_netfilter module
            sysctl.ensure(Sysctl(f"net/{path}", value, optional=path.startswith("bridge/")), namespace)
