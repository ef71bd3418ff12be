"""A lab at a glance: what Kubernetes says of it, and which processes run where."""

from pathlib import Path

from hybridnet.lab import cgroups
from hybridnet.lab.cluster import Cluster
from hybridnet.lab.state import NetworkPlugin

_HELPERS = {"sleep", "containerd-shim-runc-v2"}
"""Holders of namespaces and guards of pods: many, and of no interest."""


def describe(cluster: Cluster) -> str:
    """Text for a terminal: how it was made, nodes, networks, processes."""
    description = cluster.description
    made = f"{description.nodes} nodes, {description.network_plugin}, kube-proxy {description.kube_proxy}"
    sections = [
        f"lab {description.name}: {made}",
        f"export KUBECONFIG={cluster.kubeconfig}",
        cluster.kubectl("get", "nodes", "--output=wide", check=False).rstrip(),
    ]
    if description.network_plugin is NetworkPlugin.HYBRIDNET:
        sections.append(cluster.kubectl("get", "networks,subnets", check=False).rstrip())
    rows = [
        f"{role:10} {', '.join(names) or 'nothing runs'}"
        for role, names in processes_by_role(cluster).items()
    ]
    return "\n\n".join([*filter(None, sections), "\n".join(rows)])


def processes_by_role(cluster: Cluster) -> dict[str, list[str]]:
    """Names and ids of the running processes: ``kubelet (4711)``, by node and ``cp``."""
    prefix = cluster.topology.prefix
    roles = ("cp", *cluster.topology.node_names)
    return {role: _running(cgroups.leaf(prefix, role)) for role in roles}


def _running(group: Path) -> list[str]:
    found = []
    for pid in sorted(map(int, (group / "cgroup.procs").read_text().split())):
        name = _program(pid)
        if name and name not in _HELPERS:
            found.append(f"{name} ({pid})")
    return found


def _program(pid: int) -> str:
    """The name of a process's program; our own by their command; empty when it is gone."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    if arguments[1:3] == ["-m", "hybridnet"]:
        return f"hybridnet {arguments[3]}"
    return Path(arguments[0]).name
