"""A lab comes up, shares the machine with another, and goes without a trace, whatever died before."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hybridnet.lab import cluster as labs
from hybridnet.lab import reaper, state
from hybridnet.lab.cluster import Cluster
from hybridnet.lab.errors import LabExists, LabNotFound
from hybridnet.lab.image import IMAGE
from hybridnet.lab.processes import Place, run, wait_for
from hybridnet.lab.progress import Silent
from hybridnet.lab.state import NetworkPlugin, ProxyMode
from tests.lab.machine import Machine, changes, new_marker, observe

NAME, OTHER = "life", "lifetoo"
BRIDGE = NetworkPlugin.BRIDGE


@pytest.fixture
def marker(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every process of a lab made in this test inherits it; pods get it as an argument."""
    word = new_marker()
    monkeypatch.setenv("HYBRIDNET_TEST_MARKER", word)
    return word


@pytest.fixture
def untouched(marker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The machine before; it must be the same after."""
    for name in (NAME, OTHER):
        labs.down(name)
    before = observe(marker, (NAME, OTHER))
    yield before
    for name in (NAME, OTHER):
        labs.down(name)
        assert reaper.remains(name) == []
    assert changes(before, observe(marker, (NAME, OTHER))) == {}


def small(name: str) -> Cluster:
    return labs.up(name, Silent(), nodes=1, network_plugin=BRIDGE)


def run_pod(cluster: Cluster, marker: str) -> None:
    """A pod that ignores SIGTERM, as many do, and is found by *marker*."""
    script = f"trap '' TERM; : {marker}; while :; do sleep 1; done"
    options = ["--image-pull-policy=Never", "--restart=Never", f"--image={IMAGE}"]
    cluster.kubectl("run", "p", *options, "--command", "--", "sh", "-c", script)
    cluster.kubectl("wait", "--for=condition=ready", "pod/p", "--timeout=60s")


def test_two_labs_share_the_machine_and_the_end_of_one_is_nothing_to_the_other(
    untouched: Machine, marker: str
) -> None:
    one, two = small(NAME), small(OTHER)
    assert one.description.slot != two.description.slot
    run_pod(two, marker)
    labs.down(NAME)
    assert reaper.remains(NAME) == []
    assert "ok" in two.kubectl("get", "--raw=/readyz")
    assert two.kubectl("exec", "p", "--", "hostname").strip() == "p"
    with pytest.raises(LabNotFound):
        labs.find(NAME)


def test_a_lab_can_be_used_by_later_commands_and_ends_with_pods_that_ignore_signals(
    untouched: Machine, marker: str
) -> None:
    with pytest.raises(LabExists, match="lab down"):
        small(NAME) and small(NAME)
    found = labs.find(NAME)
    assert found.plane.api.ready_nodes() == {"node1"}
    run_pod(found, marker)
    assert "node1/kubelet" in found.logs
    assert run(["hostname"], found.node("node1").shell).stdout == b"node1\n"
    labs.down(NAME)
    assert changes(untouched, observe(marker, (NAME, OTHER))) == {}
    labs.down(NAME)  # twice is no error


@pytest.mark.parametrize(("seed", "plugin"), [(0, BRIDGE), (1, BRIDGE), (2, NetworkPlugin.HYBRIDNET)])
def test_nothing_is_left_when_random_parts_were_killed_before(
    untouched: Machine, marker: str, seed: int, plugin: NetworkPlugin
) -> None:
    cluster = labs.up(NAME, Silent(), nodes=2, network_plugin=plugin)
    run_pod(cluster, marker)
    chance = random.Random(seed)  # noqa: S311  a choice that can be repeated
    members = sorted(reaper.members(cluster.topology.prefix))
    for pid in chance.sample(members, k=len(members) // 2):
        with contextlib.suppress(ProcessLookupError):  # ended with another
            os.kill(pid, signal.SIGKILL)
    labs.down(NAME)
    assert changes(untouched, observe(marker, (NAME, OTHER))) == {}


@pytest.mark.parametrize(
    ("moment", "stop"),
    [("namespaces", "kill"), ("control plane", "kill"), ("nodes", "kill"), ("nodes", "down")],
)
def test_nothing_is_left_when_the_command_that_brings_it_up_ends_early(
    untouched: Machine, marker: str, moment: str, stop: str
) -> None:
    folder = state.folder_of(NAME)
    signs = {
        "namespaces": folder / "lab.json",
        "control plane": folder / "logs" / "kube-apiserver.log",
        "nodes": folder / "logs" / "node2" / "kubelet.log",
    }
    command = [sys.executable, "-m", "hybridnet", "lab", "up", f"--name={NAME}", "--network-plugin=bridge"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        wait_for(moment, signs[moment].exists, timeout=60, interval=0.001)
        if stop == "kill":
            up.kill()
            up.wait()
        labs.down(NAME)  # ends it when it is still at work
    assert changes(untouched, observe(marker, (NAME, OTHER))) == {}
    small(NAME)  # and the name is free again


@pytest.mark.parametrize("mode", [ProxyMode.IPTABLES, ProxyMode.NFTABLES])
def test_services_work_through_kube_proxy(untouched: Machine, marker: str, mode: ProxyMode) -> None:
    cluster = labs.up(NAME, Silent(), nodes=1, kube_proxy=mode, network_plugin=BRIDGE)
    options = ["--image-pull-policy=Never", f"--image={IMAGE}", "--port=80"]
    server = ["sh", "-c", f"mkdir /w; echo {marker} >/w/index.html; exec httpd -f -h /w -p 80"]
    cluster.kubectl("run", "web", *options, "--expose", "--command", "--", *server)
    cluster.kubectl("wait", "--for=condition=ready", "pod/web", "--timeout=60s")
    address = cluster.kubectl("get", "service/web", "-o=jsonpath={.spec.clusterIP}")
    node = cluster.node("node1").shell

    def answers() -> bool:
        answer = run(["busybox", "wget", "-q", "-O-", f"http://{address}/"], node, check=False)
        return answer.stdout.decode().strip() == marker

    wait_for(f"Service {address}", answers, timeout=30)


def test_the_router_connects_nodes_and_the_external_host_and_nothing_else(untouched: Machine) -> None:
    cluster = small(NAME)
    node = cluster.node("node1").shell
    external = Place(network=cluster.topology.namespace_path("external"))
    for address in ("172.31.2.2", "fd31:2::2", "172.31.1.1", "fd31:1::1"):
        run(["busybox", "ping", "-c1", "-W2", address], node)
    for address in ("172.31.0.11", "fd31::11"):
        run(["busybox", "ping", "-c1", "-W2", address], external)
    router = Place(network=cluster.topology.namespace_path("router"))
    assert run(["ip", "route", "show", "default"], router).stdout == b""
