"""The lab's cgroups: the one thing by which every process of a lab is found, whoever started it.

Tracking uses the version 2 hierarchy on every machine: systems with version 1 controllers have it as well
("hybrid", at /sys/fs/cgroup/unified), or it can be mounted without controllers. Version 1 hierarchies matter only
because the container runtime makes folders in them, which must go too.

    /hn-LAB/NODE.system   containerd with its shims, kubelet, kube-proxy, agent
    /hn-LAB/NODE.pods     kubelet's cgroupRoot
    /hn-LAB/cp.system     control plane, manager

Processes sit in the leaves alone, because version 2 allows controllers below an inner cgroup only then. The root
group of version 2 is told to delegate its controllers, as systemd does; that stays, and means nothing to others.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hybridnet.lab.processes import run

_MOUNTS = Path("/proc/self/mounts")
_OWN_MOUNT = Path("/run/hybridnet-lab/cgroup")
"""Where version 2 is mounted when the machine has not done it."""


def hierarchies() -> list[tuple[Path, int]]:
    """Every mounted hierarchy with its version, 1 or 2."""
    lines = (line.split() for line in _MOUNTS.read_text().splitlines())
    versions = {"cgroup": 1, "cgroup2": 2}
    return [(Path(fields[1]), versions[fields[2]]) for fields in lines if fields[2] in versions]


def unified() -> Path:
    """Root of the version 2 hierarchy; mounts it if need be. CommandFailed on kernels without it."""
    for path, version in hierarchies():
        if version == 2:
            return path
    _OWN_MOUNT.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "cgroup2", "hybridnet-lab", str(_OWN_MOUNT)])
    return _OWN_MOUNT


def leaf(prefix: str, name: str) -> Path:
    """The cgroup ``/PREFIX/NAME.system``, made if need be."""
    path = unified() / prefix / f"{name}.system"
    path.mkdir(parents=True, exist_ok=True)
    return path


def make_pods_root(prefix: str, node: str) -> str:
    """kubelet's cgroupRoot for a node, made in every hierarchy: kubelet wants to find it there."""
    name = f"{prefix}/{node}.pods"
    for root, version in hierarchies():
        if version == 2:
            (root / prefix).mkdir(exist_ok=True)
            _delegate(root, root)
            _delegate(root, root / prefix)
        (root / name).mkdir(parents=True, exist_ok=True)
    return f"/{name}"


def _delegate(root: Path, group: Path) -> None:
    """Let the children of a version 2 *group* have every controller; with version 1 there are none."""
    controllers = (root / "cgroup.controllers").read_text().split()
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))


def processes(prefix: str) -> set[int]:
    """Ids of all processes below ``/PREFIX`` in any hierarchy."""
    found: set[int] = set()
    for folder in _folders(prefix):
        with contextlib.suppress(OSError):  # gone in between, or a threaded cgroup
            found.update(map(int, (folder / "cgroup.procs").read_text().split()))
    return found


def remove(prefix: str) -> bool:
    """Remove ``/PREFIX`` from every hierarchy; whether nothing is left (a dying process holds its cgroup)."""
    clean = True
    for folder in reversed([*_folders(prefix)]):  # children before parents
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            clean = False
    return clean


def unmount_own() -> None:
    """Undo what :func:`unified` may have mounted, once no lab has a cgroup in it."""
    if not _OWN_MOUNT.is_mount() or any(_OWN_MOUNT.glob("hn-*")):
        return
    run(["umount", str(_OWN_MOUNT)])
    _OWN_MOUNT.rmdir()
    _OWN_MOUNT.parent.rmdir()


def _folders(prefix: str) -> Iterator[Path]:
    """All folders of the lab's cgroups, parents before children; what goes meanwhile is left out."""
    for root, _ in hierarchies():
        for folder, _, _ in os.walk(root / prefix):  # ignores what it cannot list
            yield Path(folder)
