"""A real etcd and kube-apiserver for the session, with our CustomResourceDefinitions, on free ports of loopback.

Their processes die with the test run, however it ends.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridnet.lab.binaries import API, find
from hybridnet.lab.controlplane import ControlPlane

CRDS = Path(__file__).parents[2] / "deploy" / "crds"


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """The control plane. A test that stops its API server starts it again and waits until it is ready."""
    _, missing = find(API)
    if missing:
        pytest.skip(f"missing {', '.join(missing)}: run ./dev setup, or set KUBEBUILDER_ASSETS")
    with ControlPlane.local() as plane:
        plane.kubectl("create", f"--filename={CRDS}")
        plane.kubectl("wait", "--for=condition=established", "crd", "--all", "--timeout=30s")
        yield plane


@pytest.fixture(scope="session")
def api_kubeconfig(api_server: ControlPlane) -> Path:
    """The administrator's kubeconfig."""
    return api_server.kubeconfig
