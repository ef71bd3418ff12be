"""Our own system on the cluster: objects, permissions, the manager, an agent per node.

They run as they will run anywhere: real processes with client certificates of their own and no more rights than
the manifests in ``deploy/`` give them, so a permission that is missing is noticed here first.
"""

import sys
from pathlib import Path

import yaml

from hybridnet.lab.binaries import CHECKOUT
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.lab.errors import ProgramMissing
from hybridnet.lab.node import Node
from hybridnet.lab.plugin import AGENT_SOCKET
from hybridnet.lab.processes import Place, Process, is_listening, start, wait_for
from hybridnet.lab.topology import OVERLAY, OVERLAY_ID, ROUTER, UNDERLAY
from hybridnet.model.address import IPNetwork

MANAGER_USER = "system:hybridnet:manager"
AGENTS_GROUP = "system:hybridnet:nodes"
STATE = "/run/hybridnet/sandboxes"
NIC = "eth0"

_API_VERSION = "networking.alibaba.com/v1"
_AGENT_TIMEOUT = 180.0


def needed_folders() -> tuple[Path, ...]:
    """Folders that our processes read, to be seen on the nodes."""
    return (Path(__file__).parents[2], Path(sys.prefix), Path(sys.base_prefix))


def install(plane: ControlPlane, place: Place, folder: Path) -> Process:
    """Apply definitions, permissions and networks, and start the manager in *place*. CommandFailed."""
    apply_objects(plane)
    return start_manager(plane, place, folder / "logs")


def apply_objects(plane: ControlPlane) -> None:
    """Make the cluster know our kinds, our processes' permissions, and the lab's networks. CommandFailed."""
    manifests = CHECKOUT / "deploy"
    if not manifests.is_dir():
        raise ProgramMissing(f"no manifests in {manifests}: run the lab from a checkout of the repository")
    for path in (*sorted(manifests.glob("crds/*.yaml")), *sorted(manifests.glob("rbac/*.yaml"))):
        for manifest in yaml.load_all(path.read_bytes(), yaml.CSafeLoader):
            plane.api.create(manifest)
    for manifest in networks():
        plane.api.create(manifest)


def start_manager(
    plane: ControlPlane, place: Place, logs: Path, *, identity: str = "cp", leader_election: bool = True
) -> Process:
    """Start a manager; with another *identity* and without *leader_election*, one more that leads too."""
    kubeconfig = plane.kubeconfig_for(MANAGER_USER, inner=True)
    command = [
        *program("manager"),
        f"--kubeconfig={kubeconfig}",
        "--namespace=kube-system",
        f"--identity={identity}",
        "--default-network-type=Overlay",
        "--default-ip-family=DualStack",
        *([] if leader_election else ["--no-leader-election"]),
    ]
    name = "manager" if identity == "cp" else f"manager-{identity}"
    return start(name, command, logs / f"{name}.log", place)


def start_agent(plane: ControlPlane, node: Node, logs: Path) -> Process:
    """Start the agent of *node* and wait until it listens. NotReady, ProcessDied."""
    agent = launch_agent(plane, node, logs)
    socket = node.path(AGENT_SOCKET)
    wait_for(f"agent of {node.name}", lambda: is_listening(socket), timeout=_AGENT_TIMEOUT, processes=[agent])
    return agent


def launch_agent(plane: ControlPlane, node: Node, logs: Path) -> Process:
    """Start the agent of *node* without waiting."""
    kubeconfig = plane.kubeconfig_for(f"system:hybridnet:node:{node.name}", (AGENTS_GROUP,), inner=True)
    command = [
        *program("agent"),
        f"--node-name={node.name}",
        f"--kubeconfig={kubeconfig}",
        f"--socket={AGENT_SOCKET}",
        f"--nic={NIC}",
        f"--state-dir={STATE}",
    ]
    return start("agent", command, logs / "agent.log", node.place)


def networks() -> list[dict[str, object]]:
    """The lab's Networks and Subnets: one overlay, one untagged underlay, both dual stack."""
    overlay = _network("overlay", {"type": "Overlay", "netID": OVERLAY_ID})
    selector = {"kubernetes.io/os": "linux"}
    underlay = _network(
        "underlay", {"type": "Underlay", "mode": "VLAN", "netID": 0, "nodeSelector": selector}
    )
    subnets = [_subnet("overlay", each, gateway=False) for each in OVERLAY]
    subnets += [_subnet("underlay", each, gateway=True) for each in UNDERLAY]
    return [overlay, underlay, *subnets]


def _network(name: str, spec: dict[str, object]) -> dict[str, object]:
    return {"apiVersion": _API_VERSION, "kind": "Network", "metadata": {"name": name}, "spec": spec}


def _subnet(network: str, cidr: IPNetwork, *, gateway: bool) -> dict[str, object]:
    addresses = {"version": str(cidr.version), "cidr": str(cidr)}
    if gateway:
        addresses["gateway"] = str(cidr[ROUTER])
    return {
        "apiVersion": _API_VERSION,
        "kind": "Subnet",
        "metadata": {"name": f"{network}-v{cidr.version}"},
        "spec": {"network": network, "range": addresses},
    }


def program(command: str) -> list[str]:
    """The command line of one of our processes, run from the same code as the lab."""
    return [sys.executable, "-m", "hybridnet", command]
