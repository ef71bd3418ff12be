"""Bad input is told to the person who can mend it, and stops nothing else."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hybridnet.lab import system
from hybridnet.lab.cluster import Cluster
from hybridnet.lab.processes import start
from tests.lab.workloads import (
    FAMILY,
    NETWORK,
    SUBNET,
    apply,
    eventually,
    namespace,
    pod,
    process,
    running,
)

SMALL = b"""
apiVersion: networking.alibaba.com/v1
kind: Subnet
metadata: {name: small}
spec:
  network: overlay
  range: {version: "4", cidr: 100.99.0.0/30}
  config: {private: true}
"""
BROKEN = b"""
apiVersion: networking.alibaba.com/v1
kind: Subnet
metadata: {name: broken}
spec: {network: overlay, range: {version: "4", cidr: 100.98.0.77/24}}
"""
ELSEWHERE = b"""
apiVersion: networking.alibaba.com/v1
kind: Network
metadata: {name: elsewhere}
spec: {nodeSelector: {rack: none}, netID: 0, type: Underlay}
---
apiVersion: networking.alibaba.com/v1
kind: Subnet
metadata: {name: elsewhere-v4}
spec: {network: elsewhere, range: {version: "4", cidr: 10.97.0.0/24, gateway: 10.97.0.1}}
"""


def described(cluster: Cluster, ns: str, name: str, *words: str) -> Callable[[], bool]:
    """Whether ``kubectl describe pod`` shows all *words*."""
    return lambda: all(w in cluster.kubectl("describe", "pod", name, "-n", ns) for w in words)


@pytest.fixture
def ns(cluster: Cluster) -> Iterator[str]:
    with namespace(cluster, f"bad{time.time_ns() % 100000}") as name:
        yield name


@contextmanager
def objects(cluster: Cluster, manifest: bytes) -> Iterator[None]:
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    try:
        yield
    finally:
        cluster.kubectl("delete", "-f", "-", "--wait=false", "--ignore-not-found", stdin=manifest)


@pytest.mark.spec("R4")
def test_a_broken_cidr_is_refused_with_the_right_one(cluster: Cluster) -> None:
    answer = ""
    try:
        cluster.kubectl("apply", "-f", "-", stdin=BROKEN)
    except Exception as error:  # noqa: BLE001  (whatever kubectl's failure is, its text is what counts)
        answer = str(error)
    assert "100.98.0.0" in answer or "host bits" in answer, answer


def test_a_pod_that_names_an_unknown_network_is_told_so_and_others_start(cluster: Cluster, ns: str) -> None:
    apply(cluster, pod("lost", {NETWORK: "nowhere"}), pod("fine", {}), namespace=ns)
    eventually(
        "the event names the network",
        described(cluster, ns, "lost", "IPAllocationFail", "nowhere"),
    )
    eventually(
        "the other pod runs",
        lambda: (
            cluster.kubectl("get", "pod", "fine", "-n", ns, "-o", "jsonpath={.status.phase}") == "Running"
        ),
    )


@pytest.mark.spec("E22")
def test_a_pod_on_a_node_outside_its_network_is_told_the_selector(cluster: Cluster, ns: str) -> None:
    with objects(cluster, ELSEWHERE):
        apply(cluster, pod("astray", {NETWORK: "elsewhere", FAMILY: "IPv4"}, "node1"), namespace=ns)
        eventually(
            "the event names node and network",
            described(cluster, ns, "astray", "IPAllocationFail", "node1", "elsewhere"),
        )


@pytest.mark.spec("A22", "A13")
def test_a_full_subnet_is_named_and_the_waiting_pod_starts_when_an_address_is_free(
    cluster: Cluster, ns: str
) -> None:
    with objects(cluster, SMALL):
        wanted = {SUBNET: "small", FAMILY: "IPv4"}
        apply(cluster, *(pod(f"p{i}", wanted, "node1") for i in range(2)), namespace=ns)
        eventually("two pods run", lambda: running(cluster, ns, 2))
        apply(cluster, pod("third", wanted, "node1"), namespace=ns)
        eventually("the event names the subnet", described(cluster, ns, "third", "IPAllocationFail", "small"))
        cluster.kubectl("delete", "pod", "p0", "-n", ns)
        eventually("the third runs", lambda: running(cluster, ns, 2), 90)
        cluster.kubectl("delete", "pod", "p1", "third", "-n", ns)


@contextmanager
def agent_with(cluster: Cluster, node: str, *changes: str) -> Iterator[str]:
    """The node's agent replaced by one with other arguments; its log. The right one comes back."""
    old = process(cluster, "agent", f"--node-name={node}")
    log = cluster.folder / "logs" / node / "changed-agent.log"
    log.unlink(missing_ok=True)
    _end(old)
    options = {
        "--node-name": node,
        "--kubeconfig": str(cluster.plane.kubeconfig_for(f"system:hybridnet:node:{node}", inner=True)),
        "--socket": system.AGENT_SOCKET,
        "--nic": system.NIC,
        "--state-dir": system.STATE,
    }
    options |= dict(change.split("=", 1) for change in changes)
    command = [*system.program("agent"), *(f"{k}={v}" for k, v in options.items())]
    changed = start("changed agent", command, log, cluster.node(node).place)
    try:
        yield str(log)
    finally:
        changed.stop(signal.SIGTERM)
        system.start_agent(cluster.plane, cluster.node(node), cluster.folder / "logs" / node)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    eventually("the agent has ended", lambda: not _alive(pid), 20)


def _alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_an_agent_without_permission_says_which_and_the_pod_hears_of_it(cluster: Cluster, ns: str) -> None:
    stranger = cluster.plane.kubeconfig_for("somebody", inner=True)
    with agent_with(cluster, "node3", f"--kubeconfig={stranger}") as log:
        apply(cluster, pod("waiting", {}, "node3"), pod("fine", {}, "node2"), namespace=ns)
        eventually(
            "describe shows the agent's answer", described(cluster, ns, "waiting", "agent", "API server")
        )
        text = Path(log).read_text()
        assert "forbidden" in text
        assert "RBAC" in text
        phase = ("get", "pod", "fine", "-n", ns, "-o", "jsonpath={.status.phase}")
        eventually("another node's pod runs", lambda: cluster.kubectl(*phase) == "Running")
    eventually("with the right agent it runs", lambda: running(cluster, ns, 2), 90)


def test_a_nic_that_does_not_exist_is_a_condition_and_an_answer(cluster: Cluster, ns: str) -> None:
    with agent_with(cluster, "node3", "--nic=eth7"):
        apply(cluster, pod("waiting", {NETWORK: "underlay", FAMILY: "IPv4"}, "node3"), namespace=ns)
        eventually("describe names node and device", described(cluster, ns, "waiting", "node3", "NIC"))
        eventually(
            "the NodeInfo is not ready",
            lambda: "NIC" in cluster.kubectl("get", "nodeinfo", "node3", "-o", "yaml"),
        )
    eventually("with the right NIC it runs", lambda: running(cluster, ns, 1), 90)
    eventually(
        "the condition is good again",
        lambda: "Serving" in cluster.kubectl("get", "nodeinfo", "node3", "-o", "yaml"),
    )
