"""The data plane goes on while its processes do not."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hybridnet.kernel.namespace import Namespace
from hybridnet.lab import system
from hybridnet.lab.cluster import Cluster
from tests.lab.pinger import Pinger
from tests.lab.workloads import (
    FAMILY,
    TYPE,
    addresses,
    apply,
    eventually,
    namespace,
    pod,
    pod_namespace,
    process,
    running,
)

OVERLAY = {TYPE: "Overlay", FAMILY: "DualStack"}
UNDERLAY = {TYPE: "Underlay", FAMILY: "DualStack"}
API_AWAY_SECONDS = 120


@pytest.fixture(scope="module")
def flows(cluster: Cluster) -> Iterator[list[tuple[str, Namespace, str]]]:
    """Sender and target of every kind of path that crosses the fabric, in both families."""
    with namespace(cluster, "restart") as ns, ExitStack() as stack:
        apply(
            cluster,
            pod("over1", OVERLAY, "node1"),
            pod("over2", OVERLAY, "node2"),
            pod("under1", UNDERLAY, "node1"),
            pod("under2", UNDERLAY, "node2"),
            namespace=ns,
        )
        eventually("four pods run", lambda: running(cluster, ns, 4))
        ips = addresses(cluster, ns)
        outside = [str(i.ip) for i in cluster.topology.external.addresses]
        found = []
        for sender, target in (("over1", ips["over2"]), ("over1", ips["under2"]), ("under1", outside)):
            opened = stack.enter_context(pod_namespace(cluster, ns, sender))
            found += [(sender, opened, ip) for ip in target]
        yield found


@contextmanager
def pinging(flows: list[tuple[str, Namespace, str]]) -> Iterator[list[Pinger]]:
    """Every flow pinged every 10 ms; fails when one request is not answered."""
    with ExitStack() as stack:
        pingers = [
            stack.enter_context(Pinger(opened, target, 4000 + number))
            for number, (_, opened, target) in enumerate(flows)
        ]
        time.sleep(1)
        yield pingers
        time.sleep(1)
    assert not [p.describe() for p in pingers if p.lost]


def agent_of(cluster: Cluster, node: str) -> int:
    return process(cluster, "agent", f"--node-name={node}")


@pytest.mark.spec("T91")
@pytest.mark.parametrize("node", ["node1", "node2"])
def test_no_ping_is_lost_when_an_agent_is_killed_and_started_again(
    cluster: Cluster, flows: list[tuple[str, Namespace, str]], node: str
) -> None:
    with pinging(flows) as pingers:
        os.kill(agent_of(cluster, node), signal.SIGKILL)
        time.sleep(2)
        system.start_agent(cluster.plane, cluster.node(node), cluster.folder / "logs" / node)
        time.sleep(3)
    assert min(len(p.sent) for p in pingers) > 300


@pytest.mark.spec("T91")
def test_no_ping_is_lost_while_the_api_server_is_away(
    cluster: Cluster, flows: list[tuple[str, Namespace, str]]
) -> None:
    with pinging(flows) as pingers:
        os.kill(process(cluster, "kube-apiserver"), signal.SIGKILL)
        try:
            time.sleep(API_AWAY_SECONDS)
        finally:
            cluster.plane.start_api_server()
            cluster.plane.wait_ready()
        time.sleep(2)
    assert min(len(p.sent) for p in pingers) > 50 * API_AWAY_SECONDS


def test_pods_start_again_after_the_api_server_has_come_back(cluster: Cluster) -> None:
    with namespace(cluster, "afterwards") as ns:
        apply(cluster, pod("late", OVERLAY, "node3"), namespace=ns)
        eventually("the pod runs", lambda: running(cluster, ns, 1), 90)
