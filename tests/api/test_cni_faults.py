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
