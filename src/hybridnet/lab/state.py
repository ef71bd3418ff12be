"""What a lab leaves on disk: its description and its folder, ``/var/lib/hybridnet-lab/NAME``.

    lab.json            how it was made (this module)
    pki/ kubeconfigs/   credentials, readable by root alone
    kubeconfig          the administrator's
    logs/               one file per process; logs/NODE/ per node
    pids/               ids of the processes, for people
    nodes/NODE/         configuration of a node

The description is written before anything else is made, so whatever exists has a name to be removed by.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

from hybridnet.lab.errors import LabExists, LabNotFound
from hybridnet.lab.topology import ROOT, Topology, check_name


class ProxyMode(StrEnum):
    """How Services work on the nodes."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"
    NONE = "none"


class NetworkPlugin(StrEnum):
    """Which container network the nodes have."""

    HYBRIDNET = "hybridnet"
    BRIDGE = "bridge"


class Description(Struct, frozen=True, kw_only=True):
    """Everything that tells one lab from another."""

    name: str
    nodes: int
    slot: int
    kube_proxy: ProxyMode
    network_plugin: NetworkPlugin

    @property
    def topology(self) -> Topology:
        """Its names and addresses."""
        return Topology(self.name, self.nodes, self.slot)

    @property
    def folder(self) -> Path:
        """Where it keeps its files."""
        return folder_of(self.name)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for use from the root namespace."""
        return self.folder / "kubeconfig"


_DECODER = msgspec.json.Decoder(Description)


def folder_of(name: str) -> Path:
    """The folder of the lab called *name*. InvalidName."""
    return ROOT / check_name(name)


def save(description: Description) -> None:
    """Claim the name. LabExists when the folder is there."""
    try:
        description.folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise LabExists(
            f"lab {description.name!r} is there already: use it, or 'hybridnet lab down --name {description.name}'"
        ) from None
    (description.folder / "lab.json").write_bytes(msgspec.json.encode(description))


def load(name: str) -> Description:
    """The description of a lab. LabNotFound."""
    try:
        return _DECODER.decode((folder_of(name) / "lab.json").read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        raise LabNotFound(f"there is no lab {name!r}: 'hybridnet lab up --name {name}' makes one") from None


@contextlib.contextmanager
def being_made(description: Description) -> Iterator[None]:
    """Leave a note of who is making the lab, so that :func:`maker` finds them until they are done."""
    note = description.folder / "maker"
    note.write_text(f"{os.getpid()} {_start_time(os.getpid())}")
    yield
    note.unlink(missing_ok=True)


def maker(folder: Path) -> int | None:
    """The process that is bringing up the lab in *folder* right now."""
    try:
        pid, started = (folder / "maker").read_text().split()
        return int(pid) if _start_time(int(pid)) == started else None
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def _start_time(pid: int) -> str:
    """When a process began, in clock ticks since boot: with its id, a name that is never reused."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def log_files(folder: Path) -> dict[str, Path]:
    """Log files of the lab in *folder* by process: ``etcd``, ``node1/kubelet``."""
    base = folder / "logs"
    return {str(path.relative_to(base).with_suffix("")): path for path in sorted(base.rglob("*.log"))}


def slots() -> set[int]:
    """Slots of all labs on this machine."""
    taken = set()
    for path in ROOT.glob("*/lab.json"):
        with contextlib.suppress(LabNotFound):  # being made or removed at this moment
            taken.add(load(path.parent.name).slot)
    return taken


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one process of the machine at a time chooses a slot and claims a name."""
    ROOT.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
