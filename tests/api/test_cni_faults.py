"""Whatever fails while a pod is attached, nothing is left behind, and the next attempt works."""

import signal
from collections.abc import Iterator

import pytest

from tests.api.cni_faults import STEPS
from tests.api.cni_shim import Sandbox
from tests.api.cni_world import World

MOMENTS = [f"{step} {when}" for step in STEPS for when in ("before", "after")]


@pytest.fixture(scope="module")
def faulty_world(node_world: World) -> Iterator[World]:
    node_world.stop_agent(signal.SIGTERM)
    node_world.start_agent(faults=True)
    yield node_world


@pytest.fixture
def faulty(faulty_world: World, node: World) -> World:
    return node


def works(world: World, pod: Sandbox) -> bool:
    """Whether *pod*, attached, answers on both families."""
    world.shim.add(pod)
    addresses = [entry["local"] for link in pod.net.show("address") for entry in link["addr_info"]]
    own = [a for a in addresses if a.startswith(("100.64.", "fd64:"))]
    return len(own) == 2 and all(world.node.pings(a) for a in own)


@pytest.mark.spec("T14")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_add_that_fails_at_any_step_leaves_nothing(faulty: World, moment: str) -> None:
    before = faulty.state()
    faulty.objects.give("unlucky", (4, 6))
    pod = faulty.sandbox("unlucky")
    faulty.inject(f"{moment} error")
    answer = faulty.shim.call("ADD", pod)
    assert (answer.status, answer.code) == (1, 11), answer.text
    assert faulty.name in answer.message
    assert faulty.state() == before
    assert [link["ifname"] for link in pod.net.show("link show")] == ["lo"]
    assert works(faulty, pod)


@pytest.mark.spec("T14")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_agent_killed_at_any_step_leaves_nothing_that_del_does_not_remove(
    faulty: World, moment: str
) -> None:
    before = faulty.state()
    faulty.objects.give("cut", (4, 6))
    pod = faulty.sandbox("cut")
    faulty.inject(f"{moment} kill")
    answer = faulty.shim.call("ADD", pod)
    assert (answer.status, answer.code) == (1, 11), answer.text
    faulty.stop_agent()
    faulty.start_agent(faults=True)
    faulty.shim.delete(pod)
    assert faulty.state() == before
    assert works(faulty, pod)


@pytest.mark.spec("T08", "T09", "T14")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_agent_killed_at_any_step_forgets_a_pod_that_ended_while_it_was_away(
    faulty: World, moment: str
) -> None:
    before = faulty.state()
    faulty.objects.give("brief", (4, 6))
    pod = faulty.sandbox("brief")
    faulty.inject(f"{moment} kill")
    assert faulty.shim.call("ADD", pod).status == 1
    faulty.stop_agent()
    faulty.shim.delete(pod)
    pod.net.close()
    faulty.start_agent(faults=True)
    assert faulty.state() == before


@pytest.mark.spec("T08", "T92")
def test_a_pod_that_ended_without_a_del_is_swept_by_the_next_audit(node: World) -> None:
    before = node.state()
    node.objects.give("vanished", (4, 6))
    pod = node.sandbox("vanished")
    node.shim.add(pod)
    pod.net.close()
    node.node.ip("rule delete priority 2000")  # what brings an audit at once
    node.eventually("it is swept", lambda: node.state() == before)
