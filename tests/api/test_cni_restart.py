"""A new agent takes over what the old one made; GC and the audit remove what nobody wants."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.api.cni_objects import OVERLAY, UNDERLAY
from tests.api.cni_shim import Sandbox
from tests.api.cni_world import World


@pytest.fixture
def populated(node: World) -> Iterator[tuple[World, list[Sandbox]]]:
    """Pods of every kind."""
    kinds = [((4,), OVERLAY), ((6,), OVERLAY), ((4, 6), OVERLAY), ((4, 6), UNDERLAY)]
    pods = []
    for number, (families, network) in enumerate(kinds):
        node.objects.give(f"kind{number}", families, network)
        pods.append(node.sandbox(f"kind{number}"))
        node.shim.add(pods[-1])
    yield node, pods


def listing(world: World) -> dict[str, Any]:
    """All of the node's kernel state that the agent can write, as other programs tell it."""
    found: dict[str, Any] = {}
    for version in (4, 6):
        for what in ("route show table all", "rule show", "neighbour show proxy", "address show"):
            found[f"{version} {what}"] = world.node.show(f"-{version} {what}")
    found["links"] = [(link["ifindex"], link["ifname"], link["mtu"]) for link in world.node.show("link show")]
    found["fdb"] = world.node.shell("bridge", "fdb", "show", "dev", "hybrvx4")
    found["ruleset"] = world.node.shell("nft", "--stateless", "list", "ruleset")
    return found


@contextmanager
def watched(world: World, folder: Path) -> Iterator[list[str]]:
    """Every change of devices, addresses, routes and rules meanwhile, as ``ip monitor`` tells it."""
    log = folder / "ip.txt"
    command = ["stdbuf", "-oL", "ip", "monitor", "link", "address", "route", "rule"]
    with log.open("wb") as output:
        process = subprocess.Popen(world.node.place.wrap(command, pdeathsig=True), stdout=output)
    told: list[str] = []

    def heard(destination: str) -> bool:
        world.node.ip(f"route add blackhole {destination}", f"route delete blackhole {destination}")
        return destination in log.read_text()

    try:
        world.eventually("the monitor hears", lambda: heard("203.0.113.1"))
        yield told
        world.eventually("the monitor has told all", lambda: heard("203.0.113.2"))
    finally:
        process.terminate()
        process.wait()
    told += [line for line in log.read_text().splitlines() if "203.0.113." not in line]


@pytest.mark.spec("T91")
def test_a_second_start_changes_nothing(populated: tuple[World, list[Sandbox]], tmp_path: Path) -> None:
    node, _ = populated
    node.eventually("IPv6 has settled", lambda: "tentative" not in node.node.shell("ip", "-6", "address"))
    node.stop_agent(signal.SIGTERM)
    before = listing(node)
    with watched(node, tmp_path) as changes:
        node.start_agent()
    assert changes == []
    assert listing(node) == before


@pytest.mark.spec("T91")
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_pods_survive_a_restart_and_end_as_if_nothing_had_been(node: World, sig: signal.Signals) -> None:
    before = node.state()
    addresses = node.objects.give("survivor", (4, 6))
    pod = node.sandbox("survivor")
    result = node.shim.add(pod)
    state = node.state()
    node.stop_agent(sig)
    assert node.state() == state
    node.start_agent()
    assert node.state() == state
    for address in addresses:
        assert node.node.pings(address)
    assert node.shim.add(pod) == result
    assert node.shim.call("CHECK", pod).status == 0
    node.shim.delete(pod)
    assert node.state() == before


@pytest.mark.spec("T06", "T91")
def test_after_a_restart_the_newer_sandbox_still_has_the_address(node: World) -> None:
    addresses = node.objects.give("twins", (4, 6))
    older = node.sandbox("twins", container="ff" * 32)
    newer = node.sandbox("twins", container="00" * 32)
    node.shim.add(older)
    device = node.shim.add(newer)["interfaces"][0]["name"]
    state = node.state()
    node.restart_agent()
    assert node.state() == state
    assert {f"route {a} {device}" for a in addresses} <= state


@pytest.mark.spec("T91")
def test_what_was_released_while_no_agent_ran_is_served_no_more(node: World) -> None:
    before = node.state()
    addresses = node.objects.give("released", (4, 6))
    pod = node.sandbox("released")
    node.shim.add(pod)
    node.stop_agent(signal.SIGTERM)
    node.objects.take_all()
    node.start_agent()
    left = {word.split()[0] for word in node.state() - before}
    assert left == {"device", "record"}
    for address in addresses:
        assert not any(f" {address} " in f"{word} " for word in node.state())


def test_gc_removes_what_the_runtime_does_not_list(populated: tuple[World, list[Sandbox]]) -> None:
    node, pods = populated
    kept, *gone = pods
    valid = [{"containerID": kept.container, "ifname": "eth0"}]
    whole = node.state()
    answer = node.shim.call("GC", version="1.1.0", configuration={"cni.dev/valid-attachments": valid})
    assert (answer.status, answer.text) == (0, "")
    for pod in gone:
        assert pod.net.link("eth0") == {}
    assert kept.net.link("eth0")
    assert node.shim.call("CHECK", kept).status == 0
    left = whole - node.state()
    assert len(left) == len(whole) - len(node.state())
    assert len(node.pod_devices()) == 1


def test_gc_with_another_interface_of_a_listed_container_removes_that_one(node: World) -> None:
    node.objects.give("forked")
    pod = node.sandbox("forked")
    node.shim.add(pod)
    valid = [{"containerID": pod.container, "ifname": "net1"}]
    assert node.shim.call("GC", version="1.1.0", configuration={"cni.dev/attachments": valid}).status == 0
    assert node.pod_devices() == set()


def test_gc_with_an_empty_list_removes_all_and_without_a_list_nothing(node: World) -> None:
    node.objects.give("listed")
    node.shim.add(node.sandbox("listed"))
    answer = node.shim.call("GC", version="1.1.0")
    assert (answer.status, answer.code) == (1, 7)
    assert "valid-attachments" in answer.message
    assert len(node.pod_devices()) == 1
    assert (
        node.shim.call("GC", version="1.1.0", configuration={"cni.dev/valid-attachments": None}).status == 0
    )
    assert node.pod_devices() == set()


def test_status_says_ready_and_prints_nothing(node: World) -> None:
    answer = node.shim.call("STATUS", version="1.1.0")
    assert (answer.status, answer.text) == (0, "")


@pytest.mark.spec("T92")
@pytest.mark.parametrize(
    "damage",
    [
        "rule delete priority 2000",
        "route delete {address}/32 table 39999",
        "route flush table 40000",
    ],
)
def test_what_somebody_takes_away_comes_back(node: World, damage: str) -> None:
    (address,) = node.objects.give("defended")
    node.shim.add(node.sandbox("defended"))
    before = _comparable(listing(node))
    node.node.ip(damage.format(address=address))
    assert _comparable(listing(node)) != before
    node.eventually("it is back", lambda: _comparable(listing(node)) == before)


def _comparable(found: dict[str, Any]) -> dict[str, str]:
    """Without the order in which the kernel lists things."""
    return {
        key: "\n".join(sorted(map(str, value)))
        for key, value in found.items()
        if key not in ("ruleset", "fdb")
    }
