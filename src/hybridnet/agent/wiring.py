"""A pod's link: made, checked and unmade. Synchronous; runs on worker threads with sockets of their own.

One request makes both ends, one batch configures the pod's side. The pod talks to its gateway with a permanent
neighbour entry, so its first packet waits for no ARP or NDP and the gateway answers although no route leads
there. Addresses carry the subnet's prefix length without its route: all traffic goes to the node. IPv6 needs no
duplicate address detection on a link of our own, which would cost one to two seconds.

The promise: a link that could not be finished is deleted again, and with it everything that hangs on it.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from hybridnet.kernel.address import add_address, dump_addresses
from hybridnet.kernel.errors import (
    AlreadyExists,
    DeviceNotFound,
    InvalidRequest,
    KernelError,
    NamespaceNotFound,
)
from hybridnet.kernel.link import (
    AddressGeneration,
    Devconf,
    change_link,
    change_message,
    create_veth,
    delete_link,
    get_link,
)
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.neighbour import NeighbourState, set_neighbour
from hybridnet.kernel.netlink import Message, Rtnl
from hybridnet.kernel.route import dump_routes, set_route
from hybridnet.model.address import Family
from hybridnet.plan import layout
from hybridnet.plan.endpoint import Endpoint
from hybridnet.plan.routing import POD_GATEWAY, host_network
from hybridnet.plan.state import DEFAULT_ROUTE, LinkAddress, Route

TABLE_MAIN = 254
_HOST_DEVCONF = {Devconf.PROXY_ARP: 1, Devconf.RP_FILTER: 0}


@dataclass(frozen=True)
class Finding:
    """What CHECK found wrong, in an engineer's words; empty: nothing."""

    text: str = ""

    def __bool__(self) -> bool:
        return bool(self.text)


def wire(endpoint: Endpoint) -> None:
    """Make the link of *endpoint*. A link of that name that exists already is replaced.

    Raises NamespaceNotFound, AlreadyExists (the pod has a foreign interface of that name), KernelError; then
    nothing is left.
    """
    families = {a.family for a in endpoint.addresses}
    with Namespace.open(endpoint.netns) as pod, Rtnl() as host:
        _refuse_own(pod, endpoint)
        pod.run(lambda: _prepare(families))
        delete_link(host, endpoint.device)
        _create(host, pod, endpoint)
        try:
            change_link(host, _host_settings(endpoint))
            _configure_pod(pod, endpoint)
        except BaseException:
            delete_link(host, endpoint.device)
            raise


def _refuse_own(pod: Namespace, endpoint: Endpoint) -> None:
    """The node's namespace is no pod's: its default route would be replaced."""
    with Namespace.current() as own:
        if own.inode == pod.inode:
            raise InvalidRequest(errno.EINVAL, f"{endpoint.netns} is the namespace of the node itself")


def _create(host: Rtnl, pod: Namespace, endpoint: Endpoint) -> None:
    try:
        create_veth(
            host,
            endpoint.device,
            mac=layout.POD_GATEWAY_MAC,
            mtu=endpoint.mtu,
            group=layout.POD_GROUP,
            peer_name=endpoint.interface,
            peer_mac=endpoint.mac,
            peer_namespace=pod,
        )
    except AlreadyExists as error:  # the host side has just been deleted: it is the pod's
        raise AlreadyExists(error.errno, f"create {endpoint.interface} in {endpoint.netns}") from error


def unwire(device: str) -> None:
    """Delete a pod's link by its host side. No error when it is gone."""
    with Rtnl() as host:
        delete_link(host, device)


def gone(endpoint: Endpoint) -> Finding:
    """Whether the pod of *endpoint* has ended: its namespace or its link is no more."""
    try:
        with Namespace.open(endpoint.netns), Rtnl() as host:
            get_link(host, endpoint.device)
    except NamespaceNotFound:
        return Finding(f"namespace {endpoint.netns} is gone")
    except DeviceNotFound:
        return Finding(f"device {endpoint.device} is gone")
    return Finding()


def check(endpoint: Endpoint) -> Finding:
    """Whether the link of *endpoint* is as :func:`wire` left it, as far as the pod needs it."""
    try:
        with Namespace.open(endpoint.netns) as pod, Rtnl() as host, Rtnl(pod) as inside:
            outside = get_link(host, endpoint.device)
            link = get_link(inside, endpoint.interface)
            have = {str(a.address) for a in dump_addresses(inside, str, everything=True)}
            routes = dump_routes(inside, lambda i: endpoint.interface if i == link.index else str(i))
    except NamespaceNotFound:
        return Finding(f"the namespace {endpoint.netns} is gone")
    except DeviceNotFound as error:
        return Finding(f"a device is missing: {error}")
    if not outside.up:
        return Finding(f"{endpoint.device}, the host side of {endpoint.interface}, is down")
    if link.mac != endpoint.mac or link.mtu != endpoint.mtu or not link.up:
        state = "up" if link.up else "down"
        return Finding(
            f"{endpoint.interface} is {state} with MAC {link.mac} and MTU {link.mtu}, "
            f"wanted up with {endpoint.mac} and {endpoint.mtu}"
        )
    for pod_address in endpoint.addresses:
        if str(pod_address.address) not in have:
            return Finding(f"{endpoint.interface} has lost its address {pod_address.address}")
    missing = [r for r in _routes(endpoint) if r.destination not in {h.destination for h in routes}]
    return Finding(f"{endpoint.interface} has lost its route to {missing[0].destination}" if missing else "")


def _prepare(families: set[Family]) -> None:
    """IPv6 settings of the pod's namespace that its new device inherits."""
    if Family.V6 not in families:
        return
    for device, knob, value in (
        ("default", "accept_dad", "0"),
        ("default", "disable_ipv6", "0"),
        ("lo", "disable_ipv6", "0"),
    ):
        path = Path(f"/proc/sys/net/ipv6/conf/{device}/{knob}")
        if path.read_text().strip() != value:
            path.write_text(value)


def _host_settings(endpoint: Endpoint) -> Message:
    """The host side up; its one IPv6 address, the gateway, is part of the pod's plan."""
    generation = AddressGeneration.NONE
    return change_message(endpoint.device, up=True, devconf=_HOST_DEVCONF, address_generation=generation)


def _configure_pod(pod: Namespace, endpoint: Endpoint) -> None:
    with Rtnl(pod) as inside:
        index = get_link(inside, endpoint.interface).index
        messages = [change_message("lo", up=True)]
        messages += [
            add_address(LinkAddress(endpoint.interface, a.address), index) for a in endpoint.addresses
        ]
        messages.append(change_message(index, up=True))
        for family in {a.family for a in endpoint.addresses}:
            messages.append(
                set_neighbour(index, POD_GATEWAY[family], layout.POD_GATEWAY_MAC, NeighbourState.PERMANENT)
            )
        messages += [set_route(route, index, replace=True) for route in _routes(endpoint)]
        _send(inside, messages)


def _routes(endpoint: Endpoint) -> list[Route]:
    wanted = []
    for family in sorted({a.family for a in endpoint.addresses}):
        gateway, device = POD_GATEWAY[family], endpoint.interface
        if family is Family.V4:
            wanted.append(Route(TABLE_MAIN, host_network(gateway), device))
        wanted.append(Route(TABLE_MAIN, DEFAULT_ROUTE[family], device, gateway=gateway))
    return wanted


def _send(rtnl: Rtnl, messages: list[Message]) -> None:
    error: KernelError | None = next(filter(None, rtnl.batch(messages)), None)
    if error is not None:
        raise error
