"""Start programs of the lab so that they outlive us, and can be found without us.

A process is put into a cgroup before it becomes the program it shall be, so it, and everything it ever starts,
is found by the lab's name alone after any crash. Files with process ids only serve people (``lab status``): an
id can be reused, membership in a cgroup cannot.

``preexec_fn`` would do the same from Python, but runs Python code after fork in a process with threads; a
two-line shell does it safely for one millisecond.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from hybridnet.lab.errors import CommandFailed, NotReady, ProcessDied

_JOIN = 'echo $$ > "$1" || exit 125; shift; exec "$@"'
_TAIL_LINES = 12


class Place(Struct, frozen=True):
    """Where a process runs: everything that is None is inherited."""

    network: Path | None = None
    """Network namespace to enter: a path such as ``/run/netns/NAME``."""
    holder: int | None = None
    """A process whose network, mount and uts namespaces to enter; stronger than *network*."""
    cgroup: Path | None = None
    """Folder of the cgroup (version 2) to join."""

    def wrap(self, command: Sequence[str], *, pdeathsig: bool = False) -> list[str]:
        """*command* with what puts it there; every step replaces itself, so the process id stays."""
        wrapped = list(command)
        if pdeathsig:
            wrapped = ["setpriv", "--pdeathsig", "KILL", *wrapped]
        if self.holder is not None:
            wrapped = ["nsenter", f"--target={self.holder}", "--net", "--mount", "--uts", "--", *wrapped]
        elif self.network is not None:
            wrapped = ["nsenter", f"--net={self.network}", "--", *wrapped]
        if self.cgroup is not None:
            wrapped = ["/bin/sh", "-c", _JOIN, "sh", str(self.cgroup / "cgroup.procs"), *wrapped]
        return wrapped


HERE = Place()


class Process:
    """A started program."""

    def __init__(self, name: str, log: Path, popen: subprocess.Popen[bytes]) -> None:
        """Wrap what :func:`start` started."""
        self.name = name
        self.log = log
        self.pid = popen.pid
        self._popen = popen

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def check(self) -> None:
        """Raise ProcessDied, with the end of its log, when it has ended."""
        code = self._popen.poll()
        if code is not None:
            raise ProcessDied(f"{self.name} ended with {code}; the end of {self.log}:\n{tail(self.log)}")

    def stop(self, sig: signal.Signals = signal.SIGKILL, timeout: float = 10) -> None:
        """Send *sig* and wait for the end, at most *timeout* seconds; then SIGKILL."""
        if self._popen.poll() is not None:
            return
        self._popen.send_signal(sig)
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    place: Place = HERE,
    *,
    environment: Mapping[str, str] | None = None,
    pdeathsig: bool = False,
) -> Process:
    """Start *command* in *place*, detached from the terminal, with all output appended to *log*.

    *environment* is added to ours. *pdeathsig*: it dies with the thread that started it (for tests).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            place.wrap(command, pdeathsig=pdeathsig),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    return Process(name, log, popen)


def run(
    command: Sequence[str],
    place: Place = HERE,
    *,
    stdin: bytes = b"",
    timeout: float = 60,
    check: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run *command* in *place* to its end. CommandFailed with its output when *check* and it failed."""
    try:
        done = subprocess.run(
            place.wrap(command), input=stdin, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(command)}: no end after {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise CommandFailed(f"{command[0]} is not installed: run ./dev setup") from error
    if check and done.returncode != 0:
        output = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise CommandFailed(f"{' '.join(command)}: exit {done.returncode}: {output}")
    return done


def wait_for(
    what: str,
    condition: Callable[[], bool],
    *,
    timeout: float,
    processes: Sequence[Process] = (),
    interval: float = 0.05,
) -> None:
    """Ask *condition* until it holds.

    NotReady after *timeout* seconds, ProcessDied as soon as one of *processes* has ended.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            logs = ", ".join(str(process.log) for process in processes)
            raise NotReady(f"{what} is not ready after {timeout:.0f} s" + (f": read {logs}" if logs else ""))
        time.sleep(interval)


def is_listening(path: Path) -> bool:
    """Whether a program accepts connections on the unix socket at *path*; its file may outlive it."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last *lines* of a log file; empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
