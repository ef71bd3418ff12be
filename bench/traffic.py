"""Runs ``traffic.c`` in namespaces: servers that stay, measurements one at a time."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

import wires
from hybridnet.lab.processes import run

PORT = 7000
WARM_UP_MS = 50
_SOURCE = Path(__file__).with_name("traffic.c")
_COMPILER = ["musl-gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-static", "-s"]


class Sample(Struct, frozen=True):
    """What one measurement saw."""

    count: int
    """Bytes of a stream, answers otherwise."""
    seconds: float
    cpu: float
    """Seconds of CPU that client and server used."""

    @property
    def rate(self) -> float:
        """Bytes or answers a second."""
        return self.count / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of CPU for a byte or an answer."""
        return self.cpu / self.count


@contextlib.contextmanager
def compiled() -> Iterator[Path]:
    """The program, until the context ends. CommandFailed."""
    with tempfile.TemporaryDirectory(prefix="hybridnet-bench-") as folder:
        program = Path(folder) / "traffic"
        run([*_COMPILER, "-o", str(program), str(_SOURCE)])
        yield program


@contextlib.contextmanager
def served(program: Path, role: str) -> Iterator[None]:
    """A server in namespace *role* that dies with us."""
    command = wires.inside(role).wrap([str(program), "serve", str(PORT)], pdeathsig=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"no traffic server in {role}")
            yield
        finally:
            process.kill()


def measure(program: Path, role: str, kind: str, address: str, milliseconds: int) -> Sample:
    """Traffic of *kind* (stream, tcp, udp) from namespace *role* to *address*, after a short one to warm up."""
    for duration in (WARM_UP_MS, milliseconds):
        command = [str(program), kind, address, str(PORT), str(duration)]
        answer = run(command, wires.inside(role), timeout=30 + milliseconds / 1000).stdout
    count, nanoseconds, cpu = map(int, answer.split())
    return Sample(count, nanoseconds / 1e9, cpu / 1e9)
