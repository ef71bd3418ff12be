"""End everything of a lab, knowing its name alone.

Members are found by cgroup and by network namespace: a process that left one is still in the other. Each is
ended by a pidfd that was opened before its membership was read again, so a process id that was reused in between
is never hit. Nothing is asked to end politely: what is being removed has no state worth keeping.
"""

import contextlib
import os
import select
import shutil
import signal
import time
from pathlib import Path

from hybridnet.kernel.namespace import RUN_NETNS
from hybridnet.lab import cgroups, fabric, state
from hybridnet.lab.errors import CleanupFailed
from hybridnet.lab.processes import run
from hybridnet.lab.topology import ROOT

TIMEOUT = 120.0
"""Seconds for all of it."""


def members(prefix: str) -> set[int]:
    """Ids of all processes in the cgroups or the network namespaces of ``hn-LAB``, ourselves never."""
    inodes = {path.stat().st_ino for path in RUN_NETNS.glob(f"{prefix}-*")}
    found = cgroups.processes(prefix)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in found and _namespace_of(entry) in inodes:
            found.add(int(entry.name))
    return found - {os.getpid()}


def reap(name: str, folder: Path) -> None:
    """Remove the lab called *name*: processes, namespaces, cgroups, devices, files. CleanupFailed.

    Idempotent: what is gone is no error.
    """
    prefix = f"hn-{name}"
    deadline = time.monotonic() + TIMEOUT
    _end_maker(folder)
    _end_all(prefix, deadline)
    while not cgroups.remove(prefix):  # in use by the dying, or by one that joined only now
        _pause(deadline, f"cgroups called {prefix} are still in use")
        _end_all(prefix, deadline)
    run(["ip", "link", "delete", prefix], check=False)  # goes with its peer; this covers half-made fabrics
    fabric.delete(prefix)
    cgroups.unmount_own()
    if folder.exists():
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # other labs are in it
        ROOT.rmdir()


def remains(name: str) -> list[str]:
    """What is there of a lab called *name*, for people: empty when nothing is."""
    prefix = f"hn-{name}"
    found = [f"process {pid}" for pid in sorted(members(prefix))]
    found += [f"network namespace {path.name}" for path in sorted(RUN_NETNS.glob(f"{prefix}-*"))]
    found += [f"cgroup {root / prefix}" for root, _ in cgroups.hierarchies() if (root / prefix).exists()]
    if Path(f"/sys/class/net/{prefix}").exists():
        found.append(f"device {prefix}")
    if (ROOT / name).exists():
        found.append(f"folder {ROOT / name}")
    return found


def _end_maker(folder: Path) -> None:
    """End a command that is still bringing the lab up: it would go on making what is being removed."""
    pid = state.maker(folder)
    if pid is None or pid == os.getpid():
        return
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        if state.maker(folder) == pid:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _wait(descriptor, time.monotonic() + TIMEOUT)
        os.close(descriptor)


def _end_all(prefix: str, deadline: float) -> None:
    """Kill until nobody is left: a process may have forked while its parent was being killed."""
    while pids := members(prefix):
        ended = [descriptor for pid in pids if (descriptor := _kill(pid, prefix)) is not None]
        for descriptor in ended:
            _wait(descriptor, deadline)
            os.close(descriptor)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):  # only our own children wait for us
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise CleanupFailed(f"processes of {prefix} do not end: {sorted(pids)}")


def _kill(pid: int, prefix: str) -> int | None:
    """SIGKILL to *pid* if it is still a member; a pidfd to wait on."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if not _is_member(pid, prefix):
        os.close(descriptor)
        return None
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    return descriptor


def _is_member(pid: int, prefix: str) -> bool:
    with contextlib.suppress(OSError):
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        if any(line.split(":", 2)[2].startswith(f"/{prefix}/") for line in groups):
            return True
    inodes = {path.stat().st_ino for path in RUN_NETNS.glob(f"{prefix}-*")}
    return _namespace_of(Path(f"/proc/{pid}")) in inodes


def _namespace_of(process: Path) -> int | None:
    """Inode of a process's network namespace; None when it is gone or a kernel thread."""
    try:
        return (process / "ns" / "net").stat().st_ino
    except OSError:
        return None


def _wait(descriptor: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise CleanupFailed(f"{what} after {TIMEOUT:.0f} s")
    time.sleep(0.02)
