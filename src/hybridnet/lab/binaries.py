"""The programs of Kubernetes: found, or built once.

Looked for in this order: the folder that ``KUBEBUILDER_ASSETS`` names (the convention of envtest), our cache
(``$XDG_CACHE_HOME/hybridnet/kubernetes/VERSION``), a Go build of ``lab/kubernetes`` into that cache. A build
goes to a temporary folder, each program is renamed into the cache when it is whole, and the first start of a
program never meets half of one.

Building beats downloading: the module proxy and its checksum database verify every source file, and it needs no
host besides the one that Go needs anyway.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from hybridnet.lab.errors import BinaryMissing, ProgramMissing

CHECKOUT = Path(__file__).parents[3]
"""Root of the repository; in an installed wheel there is nothing of it."""
MODULE = CHECKOUT / "lab" / "kubernetes"
"""Our Go module."""

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
"""Program -> Go package."""

API = ("etcd", "kube-apiserver", "kubectl")
"""What an API server alone needs."""
ALL = tuple(PACKAGES)

_REQUIREMENT = re.compile(r"^\s*(?:require\s+)?k8s\.io/kubernetes (v\S+)", re.MULTILINE)


class Binaries(Struct, frozen=True):
    """Where each program is."""

    paths: dict[str, Path]

    def __getitem__(self, name: str) -> str:
        """Path of a program, as a command line wants it. BinaryMissing."""
        try:
            return str(self.paths[name])
        except KeyError:
            raise BinaryMissing(f"{name} is not at hand: run ./dev setup") from None


def kubernetes_version(module: Path = MODULE) -> str:
    """The version that go.mod requires, for example ``v1.36.3``. BinaryMissing outside a checkout."""
    try:
        text = (module / "go.mod").read_text()
    except FileNotFoundError:
        raise BinaryMissing(
            f"no Kubernetes programs and no {module} to build them from: run from a checkout of the "
            "repository, or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kubelet, ..."
        ) from None
    found = _REQUIREMENT.search(text)
    if not found:
        raise BinaryMissing(f"{module}/go.mod does not require k8s.io/kubernetes")
    return found[1]


def cache_base() -> Path:
    """Where everything that we build is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybridnet"


def cache_folder(version: str) -> Path:
    """Where built programs of Kubernetes are kept."""
    return cache_base() / "kubernetes" / version


def find(names: Iterable[str] = ALL) -> tuple[Binaries, list[str]]:
    """Those of *names* that are there, and the names of those that are not."""
    folders = []
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        folders.append(Path(assets))
    if (MODULE / "go.mod").exists():
        folders.append(cache_folder(kubernetes_version()))
    paths = {}
    missing = []
    for name in names:
        path = next((f / name for f in folders if os.access(f / name, os.X_OK)), None)
        if path is None:
            missing.append(name)
        else:
            paths[name] = path
    return Binaries(paths), missing


def require(names: Iterable[str] = ALL) -> Binaries:
    """All of *names*, without building. BinaryMissing tells which are not there."""
    binaries, missing = find(names)
    if missing:
        raise BinaryMissing(f"missing {', '.join(missing)}: run ./dev setup, which builds them")
    return binaries


def find_program(name: str) -> str:
    """A program of the operating system, by PATH. ProgramMissing names the way to get it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise ProgramMissing(f"{name} is not installed: run ./dev setup")
    return path
