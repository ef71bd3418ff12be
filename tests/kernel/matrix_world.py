"""Two nodes with an overlay and an underlay, made by hand with iproute2 and nft: what the matrix is tried on.

                 [external] 10.4.0.2 fd04::2
                      |
    [node1]  [node2]  [router]  10.1.0.1 fd01::1, gateway of the underlay 10.2.0.1 fd02::1
       |        |        |
     ==+========+========+==  [switch]   nodes 10.1.0.11 and .12, fd01::11 and ::12

It does what Hybridnet does, by the shortest means and with nothing of its code, so every cell is as the
architecture says; then a test breaks one thing.
"""

import subprocess
from collections.abc import Callable
from ipaddress import ip_address

from hybridnet.lab.matrix.cells import Endpoint, Kind
from hybridnet.lab.matrix.judge import Fabric
from hybridnet.lab.matrix.run import Service
from tests.kernel.netns import Net

VNI = 4
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
PODS = {
    "overlay-1a": (1, 11),
    "overlay-1b": (1, 12),
    "overlay-2": (2, 13),
    "underlay-1a": (1, 11),
    "underlay-1b": (1, 12),
    "underlay-2": (2, 13),
}
"""Number of the node, host part of the addresses."""
SERVICES = {"10.96.0.1": "10.3.0.13", "fd96::1": "fd03::13"}
"""ClusterIP to endpoint."""

_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
)
_FIREWALL = """
table inet world {
  chain classify {
    type filter hook prerouting priority mangle
    iifname "vx" ct state new ip saddr 10.1.0.0/24 ct mark set 1
    iifname "vx" ct state new ip6 saddr fd01::/64 ct mark set 1
    iifname "underlay*" ct direction reply ct mark 1 meta mark set 1
    iifname "overlay*" ct direction reply ct mark 1 meta mark set 1
  }
  chain services {
    type nat hook prerouting priority dstnat
    ip daddr 10.96.0.1 dnat ip to 10.3.0.13
    ip6 daddr fd96::1 dnat ip6 to fd03::13
  }
  chain outgoing {
    type nat hook postrouting priority srcnat
    ip saddr 10.3.0.0/24 oifname "eth0" masquerade
    ip6 saddr fd03::/64 oifname "eth0" masquerade
  }
  chain clear {
    type filter hook postrouting priority srcnat + 10
    meta mark set 0
  }
}
"""


class World:
    """The namespaces by role: ``switch``, ``router``, ``external``, ``node1``, ``node2`` and the pods' names."""

    def __init__(self, make: Callable[[], Net]) -> None:
        roles = ("switch", "router", "external", "node1", "node2", *PODS)
        self.nets = {role: make() for role in roles}
        for role in ("router", "external", "node1", "node2"):
            self.nets[role].shell("sysctl", "-qw", *_SYSCTLS)
        self._switch()
        self._outside()
        for number in (1, 2):
            self._node(number)
        for name in PODS:
            self._pod(name)

    def ip(self, role: str, *commands: str) -> None:
        """``ip`` commands in a namespace."""
        text = "\n".join([*commands, ""])
        command = ["ip", "-n", self.nets[role].name, "-batch", "-"]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{role}: {done.stderr}"

    def nft(self, role: str, text: str) -> None:
        self.nets[role].shell("nft", text)

    def path(self, role: str) -> str:
        return f"/run/netns/{self.nets[role].name}"

    @property
    def fabric(self) -> Fabric:
        """What the judge is told of the nodes."""
        return Fabric(VNI, 8472, {f"node{n}": tuple(map(ip_address, _node(n))) for n in (1, 2)})

    def endpoints(self) -> list[Endpoint]:
        found = [
            Endpoint(
                name,
                Kind(name.split("-")[0]),
                f"node{PODS[name][0]}",
                self.path(name),
                tuple(map(ip_address, _addresses(name))),
                _mtu(name),
            )
            for name in PODS
        ]
        for number in (1, 2):
            role = f"node{number}"
            addresses = self.fabric.nodes[role]
            found.append(Endpoint(role, Kind.NODE, role, self.path(role), addresses, 1500))
        outside = (ip_address("10.4.0.2"), ip_address("fd04::2"))
        found.append(Endpoint("external", Kind.EXTERNAL, "", self.path("external"), outside, 1500))
        return found

    def services(self) -> list[Service]:
        backend = next(e for e in self.endpoints() if e.name == "overlay-2")
        return [Service(tuple(map(ip_address, SERVICES)), backend)]

    def outside_route(self, pod: str) -> list[str]:
        """What the router must be told so that the outside reaches a pod."""
        vias = _node(PODS[pod][0])
        return [f"route replace {a} via {v}" for a, v in zip(_addresses(pod), vias, strict=True)]

    def _switch(self) -> None:
        self.ip("switch", "link add br0 type bridge mcast_snooping 0", "link set br0 up")
        for role in ("router", "node1", "node2"):
            self.ip(
                "switch",
                f"link add {role} type veth peer name eth0 netns {self.nets[role].name}",
                f"link set {role} master br0 up",
            )

    def _outside(self) -> None:
        router = ("10.1.0.1/24", "fd01::1/64", "10.2.0.1/24", "fd02::1/64")
        self.ip(
            "router",
            f"link add eth1 type veth peer name eth0 netns {self.nets['external'].name}",
            *(f"address add {each} dev eth0" for each in router),
            *(f"address add {each} dev eth1" for each in ("10.4.0.1/24", "fd04::1/64")),
            "link set eth0 up",
            "link set eth1 up",
        )
        self.ip(
            "external",
            *(f"address add {each} dev eth0" for each in ("10.4.0.2/24", "fd04::2/64")),
            "link set eth0 up",
            "route add default via 10.4.0.1",
            "route add default via fd04::1",
        )

    def _node(self, number: int) -> None:
        role, other = f"node{number}", 3 - number
        v4, v6 = _node(number)
        self.ip(
            role,
            f"address add {v4}/24 dev eth0",
            f"address add {v6}/64 dev eth0",
            "link set eth0 up",
            f"link add vx address {_vtep(number)} mtu 1450 type vxlan id {VNI} local {v4} dstport 8472 nolearning",
            "link set vx up",
            "route add default via 10.1.0.1",
            "route add default via fd01::1",
            *(f"neigh add {each} lladdr {_vtep(other)} dev vx" for each in _node(other)),
        )
        self.nets[role].shell("bridge", "fdb", "add", _vtep(other), "dev", "vx", "dst", _node(other)[0])
        proxying = ("net.ipv4.neigh.eth0.proxy_delay=0", "net.ipv6.neigh.eth0.proxy_delay=0")
        self.nets[role].shell("sysctl", "-qw", "net.ipv6.conf.eth0.proxy_ndp=1", *proxying)
        for family, overlay, underlay, source in (
            ("-4", "10.3.0.0/24", "10.2.0.0/24", v4),
            ("-6", "fd03::/64", "fd02::/64", v6),
        ):
            self._routing(role, family, overlay, underlay, source)
        self.nft(role, _FIREWALL)

    def _routing(self, role: str, family: str, overlay: str, underlay: str, source: str) -> None:
        gateway = str(ip_address(underlay.split("/", maxsplit=1)[0]) + 1)
        command = ["ip", "-n", self.nets[role].name, family, "-batch", "-"]
        lines = [
            "rule add pref 2000 lookup 39999",
            "rule add pref 2010 lookup 40000",
            "rule add pref 2020 fwmark 1 lookup 40001",
            f"rule add pref 2040 from {overlay} lookup 40002",
            f"rule add pref 2100 from {underlay} lookup 10000",
            f"route add {overlay} dev vx table 40000 src {source}",
            "route add default dev vx table 40001",
            f"route add {underlay} dev vx table 40002",
            f"route add throw {gateway} table 40002",
            f"route add {underlay} dev eth0 table 10000",
            f"route add default via {gateway} dev eth0 onlink table 10000",
        ]
        text = "\n".join([*lines, ""])
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def _pod(self, name: str) -> None:
        number, host = PODS[name]
        node, other = f"node{number}", f"node{3 - number}"
        mac = f"02:00:00:00:0{1 if name.startswith('o') else 2}:{host:02x}"
        addresses = _addresses(name)
        self.ip(
            node,
            f"link add {name} address {GATEWAY_MAC} mtu {_mtu(name)} type veth"
            f" peer name eth0 address {mac} mtu {_mtu(name)} netns {self.nets[name].name}",
            f"link set {name} up",
        )
        for address in addresses:
            self.ip(
                node,
                f"neigh add {address} lladdr {mac} dev {name}",
                f"route add {address} dev {name} table 39999",
            )
            if name.startswith("underlay"):
                self.ip(node, f"neigh add proxy {address} dev eth0")
            self.ip(other, f"neigh add {address} lladdr {_vtep(number)} dev vx")
        v4, v6 = addresses
        self.ip(
            name,
            f"address add {v4}/32 dev eth0",
            f"address add {v6}/128 dev eth0 nodad",
            "link set eth0 up",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0",
            f"neigh add fe80::1 lladdr {GATEWAY_MAC} dev eth0",
            "route add default via 169.254.1.1 dev eth0 onlink",
            "route add default via fe80::1 dev eth0",
        )


def _node(number: int) -> tuple[str, str]:
    return f"10.1.0.1{number}", f"fd01::1{number}"


def _vtep(number: int) -> str:
    return f"02:00:00:00:00:0{number}"


def _addresses(pod: str) -> tuple[str, str]:
    host = PODS[pod][1]
    return (f"10.3.0.{host}", f"fd03::{host}") if pod.startswith("o") else (f"10.2.0.{host}", f"fd02::{host}")


def _mtu(pod: str) -> int:
    return 1450 if pod.startswith("overlay") else 1500
