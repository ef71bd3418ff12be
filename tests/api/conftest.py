"""A real etcd and kube-apiserver for the session, with our CustomResourceDefinitions, on free ports of loopback.

Their processes die with the test run, however it ends.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridnet.lab.binaries import API, find
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.lab.processes import wait_for
from hybridnet.model.resource import GROUP
from tests.api import cni_net
from tests.api.cni_world import World, world

CRDS = Path(__file__).parents[2] / "deploy" / "crds"


def serve_kinds(plane: ControlPlane) -> None:
    """Create the CRDs and wait until the API server serves all of them.

    Not by ``kubectl wait``: it fails on a CRD that has no conditions yet.
    """
    plane.kubectl("create", f"--filename={CRDS}")

    def served() -> bool:
        kinds = plane.kubectl("get", "--raw", f"/apis/{GROUP}/v1", check=False)
        return all(f'"{path.stem}"' in kinds for path in CRDS.glob("*.yaml"))

    wait_for("the kinds of the project", served, timeout=30, interval=0.2)


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """The control plane. A test that stops its API server starts it again and waits until it is ready."""
    _, missing = find(API)
    if missing:
        pytest.skip(f"missing {', '.join(missing)}: run ./dev setup, or set KUBEBUILDER_ASSETS")
    with ControlPlane.local() as plane:
        serve_kinds(plane)
        yield plane


@pytest.fixture(scope="session")
def api_kubeconfig(api_server: ControlPlane) -> Path:
    """The administrator's kubeconfig."""
    return api_server.kubeconfig


@pytest.fixture(scope="module")
def node_world(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A node with an agent that serves, for the tests of a module."""
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    cni_net.remove_orphans()
    with world(api_server, tmp_path_factory.mktemp("node")) as made:
        made.start_agent()
        yield made


@pytest.fixture
def restarted(node: World) -> Iterator[World]:
    """The node for a test that ends or replaces the agent; afterwards there is one as before."""
    yield node
    node.stop_agent(signal.SIGTERM)
    node.start_agent()


@pytest.fixture
def node(node_world: World) -> Iterator[World]:
    """The node of the module; the test fails when it leaves anything of its pods behind."""
    node_world.ensure_agent()
    before = node_world.state()
    yield node_world
    node_world.ensure_agent()
    node_world.end_pods()
    assert node_world.state() == before
