"""A node: a network, a mount and a uts namespace, held by one sleeping process.

Inside, the standard paths are the node's own, so every program runs with its defaults:

    /run /var/lib /var/log    empty, in memory
    /etc /opt                 the machine's, changes are the node's own (overlay)
    /sys                      shows the node's devices; the cgroups are bound back below it
    a few /proc/sys files     hold what kubelet wants, so that it does not change the machine

All of it is in the node's mount namespace alone. Nothing is mounted or made on the machine, so nothing can be left
behind: when the last process of the node ends, the kernel removes it all. ``ip netns exec`` is no way in: it
mounts a /sys without cgroups, and kubelet dies of that.
"""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from hybridnet.lab import cgroups
from hybridnet.lab.errors import CommandFailed, LabNotFound
from hybridnet.lab.processes import Place
from hybridnet.lab.topology import Host, Topology

_REPLACED = {"/run": "run", "/var/lib": "lib", "/var/log": "log"}
"""Paths that the node replaces, and by which folder of its root in memory."""

_PINNED = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What kubelet would set, machine-wide (pkg/kubelet/cm)."""

_SCRIPT = """\
set -e
pin() {{
    [ -e "/proc/sys/$1" ] || return 0
    mkdir -p "pinned/$1.d"
    echo "$2" > "pinned/$1.d/value"
    mount --bind "pinned/$1.d/value" "/proc/sys/$1"
}}
hostname {name}
umount -lR /run/netns 2>/dev/null || :
root={root}
mkdir -p "$root"
mount -t tmpfs -o mode=755 hybridnet-lab "$root"
cd "$root"
mkdir run lib log etc etc.work opt opt.work cgroup pinned
mount --rbind /sys/fs/cgroup cgroup
mount -t sysfs sysfs /sys
mount --rbind cgroup /sys/fs/cgroup
umount -lR cgroup
mkdir -p /opt
mount -t overlay -o lowerdir=/etc,upperdir="$root/etc",workdir="$root/etc.work" overlay /etc
mount -t overlay -o lowerdir=/opt,upperdir="$root/opt",workdir="$root/opt.work" overlay /opt
{pinned}
{kept}
mount --rbind lib /var/lib
mount --rbind log /var/log
mount --rbind run /run
mkdir -p /etc/cni/net.d /opt/cni/bin /run/netns /var/lib/kubelet /var/lib/containerd /var/log/pods
mount --make-rshared /
echo ready
exec sleep infinity >/dev/null 2>&1
"""


class Node:
    """One node that is up."""

    def __init__(self, topology: Topology, host: Host, holder: int) -> None:
        """Describe a node whose namespaces process *holder* keeps."""
        self.name = host.role
        self.host = host
        self.holder = holder
        self._prefix = topology.prefix

    @property
    def place(self) -> Place:
        """Where programs of the node run."""
        return Place(holder=self.holder, cgroup=cgroups.leaf(self._prefix, self.name))

    @property
    def shell(self) -> Place:
        """Where commands that only look run: in the node, but not part of it."""
        return Place(holder=self.holder)

    @property
    def cgroup_root(self) -> str:
        """kubelet's cgroupRoot."""
        return cgroups.make_pods_root(self._prefix, self.name)

    def path(self, inside: str) -> Path:
        """A path of the node as the machine sees it."""
        return Path(f"/proc/{self.holder}/root") / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of the node."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.chmod(mode)
        temporary.rename(path)  # programs watch these folders and must not read half a file


def boot(topology: Topology, name: str, folder: Path, needed: Iterable[Path]) -> Node:
    """Make the namespaces of a node; *folder* is the lab's.

    *needed*: folders that must be seen inside at the same path, wherever they are. CommandFailed.
    """
    place = Place(network=topology.namespace_path(name), cgroup=cgroups.leaf(topology.prefix, name))
    text = script(name, folder, [*needed, Path(sys.prefix), Path(sys.base_prefix)])
    command = ["unshare", "--mount", "--uts", "--propagation", "private", "--", "/bin/sh", "-c", text]
    holder = subprocess.Popen(
        place.wrap(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert holder.stdout and holder.stderr  # noqa: S101  both are pipes
    if holder.stdout.readline() != b"ready\n":
        message = holder.stderr.read().decode(errors="replace").strip()
        holder.wait()
        raise CommandFailed(f"cannot set up the namespaces of {name}: {message}")
    (folder / "pids").mkdir(exist_ok=True)
    (folder / "pids" / f"{name}.holder").write_text(str(holder.pid))
    return Node(topology, topology.node(name), holder.pid)


def find(topology: Topology, name: str, folder: Path) -> Node:
    """A node of a lab that is up. LabNotFound when the node is not."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        holder = int((folder / "pids" / f"{name}.holder").read_text())
        if holder in cgroups.processes(topology.prefix):
            return Node(topology, topology.node(name), holder)
    raise LabNotFound(f"{name} is not up: 'hybridnet lab status' shows what is")


def script(name: str, folder: Path, needed: Iterable[Path]) -> str:
    """The shell script that turns new namespaces into a node and then sleeps."""
    kept = [
        f"mkdir -p {inside}; mount --bind {shlex.quote(str(path))} {inside}"
        for path in dict.fromkeys([folder, *needed])
        if (inside := _relocate(path))
    ]
    pinned = [f"pin {path} {value}" for path, value in _PINNED.items()]
    return _SCRIPT.format(
        name=shlex.quote(name),
        root=shlex.quote(str(folder / "nodes" / name / "root")),
        kept="\n".join(kept),
        pinned="\n".join(pinned),
    )


def _relocate(path: Path) -> str:
    """Where *path* must be bound so that it stays visible; empty when the node does not hide it."""
    for hidden, folder in _REPLACED.items():
        if path.is_relative_to(hidden):
            return shlex.quote(str(folder / path.relative_to(hidden)))
    return ""
