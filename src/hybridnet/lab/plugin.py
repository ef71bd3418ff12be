"""The container network of the nodes: what is put into /etc/cni/net.d and /opt/cni/bin.

``bridge`` is Debian's plugin with host-local ranges and static routes between the nodes: the yardstick of our
benchmarks, and the proof that a fault is not the lab's. Both kinds write the configuration last, because a node is
ready for pods from then on.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from hybridnet.lab.binaries import CHECKOUT, cache_base
from hybridnet.lab.errors import ProgramMissing
from hybridnet.lab.node import Node
from hybridnet.lab.processes import run
from hybridnet.lab.topology import Topology

STOCK_PLUGINS = Path("/usr/lib/cni")
"""Where Debian installs the reference plugins; container runtimes need ``loopback`` of it."""
AGENT_SOCKET = "/run/hybridnet/agent.sock"

_NETWORKS = "/etc/cni/net.d"
_EXECUTABLES = "/opt/cni/bin"


def install_bridge(topology: Topology, node: Node) -> None:
    """Make *node* a router between the pods on its bridge and the other nodes."""
    for path in sorted(STOCK_PLUGINS.iterdir()):
        _link(node, path)
    run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"], node.shell)
    run(["ip", "-batch", "-"], node.shell, stdin="\n".join(bridge_routes(topology, node.name)).encode())
    node.write(
        f"{_NETWORKS}/10-bridge.conflist", msgspec.json.encode(bridge_configuration(topology, node.name))
    )


def install_hybridnet(node: Node) -> None:
    """Point the container runtime at the agent; call it once the agent listens."""
    _link(node, STOCK_PLUGINS / "loopback")
    node.write(f"{_EXECUTABLES}/hybridnet", cni_executable().read_bytes(), 0o755)
    plugin = {"type": "hybridnet", "server_socket": AGENT_SOCKET}
    configuration = {"cniVersion": "1.0.0", "name": "hybridnet", "plugins": [plugin]}
    node.write(f"{_NETWORKS}/06-hybridnet.conflist", msgspec.json.encode(configuration))


def bridge_configuration(topology: Topology, node: str) -> dict[str, object]:
    """The CNI configuration of *node* with the bridge plugin."""
    ranges = [[{"subnet": str(subnet)}] for subnet in topology.pod_ranges(node)]
    plugin = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
    }
    return {"cniVersion": "1.0.0", "name": "bridge", "plugins": [plugin]}


def bridge_routes(topology: Topology, node: str) -> list[str]:
    """``ip`` commands on *node*: the pods of every other node are behind that node."""
    return [
        f"route add {subnet} via {interface.ip}"
        for other in topology.node_names
        if other != node
        for subnet, interface in zip(topology.pod_ranges(other), topology.node(other).addresses, strict=True)
    ]


def cni_executable() -> Path:
    """Our CNI executable, compiled on first use and kept by the hash of its source. ProgramMissing."""
    source = CHECKOUT / "cni" / "hybridnet.c"
    if not source.exists():
        raise ProgramMissing(f"no CNI executable and no {source} to build it from: run from a checkout")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    path = cache_base() / "cni" / digest / "hybridnet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / "hybridnet"
            run(["make", "-s", "-C", str(source.parent), f"OUT={built}"])
            os.replace(built, path)  # noqa: PTH105  atomic: another lab may be coming up
    return path


def _link(node: Node, executable: Path) -> None:
    if not executable.exists():
        raise ProgramMissing(
            f"{executable} is missing: apt-get install containernetworking-plugins, or ./dev setup"
        )
    target = node.path(f"{_EXECUTABLES}/{executable.name}")
    if not target.exists():
        target.symlink_to(executable)
