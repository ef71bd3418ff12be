"""What a lab could leave on the machine, as one value that can be compared."""

import uuid
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from hybridnet.kernel.namespace import RUN_NETNS
from hybridnet.lab import cgroups
from hybridnet.lab.topology import ROOT

FOLDERS = ("/etc/cni", "/opt", "/opt/cni", "/var/lib", "/var/log", "/run", "/usr/libexec")
SYSCTLS = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "net/ipv4/ip_forward",
)
EVERYBODYS = {str(ROOT), str(RUN_NETNS)}
"""Folders that other labs and programs may make or remove at any time."""


class Machine(Struct, frozen=True):
    """Everything of the machine that a lab makes, or must not touch."""

    processes: frozenset[str]
    namespaces: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    devices: frozenset[str]
    folders: frozenset[str]
    sysctls: tuple[str, ...]


def changes(before: Machine, after: Machine) -> dict[str, object]:
    """What differs, by field: so that a failed test says it. Empty when nothing does."""
    found: dict[str, object] = {}
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            found[name] = sorted(set(old) ^ set(new)) if isinstance(old, frozenset) else (old, new)
    return found


def observe(marker: str, labs: Iterable[str]) -> Machine:
    """The machine now, as far as *labs* go: what is named after another lab does not count.

    Processes are those that carry *marker* in their environment or arguments.
    """
    prefixes = tuple(f"hn-{lab}" for lab in labs)

    def ours(texts: Iterable[str]) -> frozenset[str]:
        return frozenset(text for text in texts if "hn-" not in text or any(p in text for p in prefixes))

    mounts = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    groups = (path for root, _ in cgroups.hierarchies() for path in root.iterdir() if path.is_dir())
    folders = {str(path) for folder in FOLDERS for path in _entries(Path(folder))} - EVERYBODYS
    return Machine(
        processes=frozenset(_marked(marker)),
        namespaces=frozenset(path.name for path in _entries(RUN_NETNS) if path.name.startswith(prefixes)),
        mounts=ours(f"{fields[3]} {fields[4]}" for fields in mounts if not _is_foreign(fields[4])),
        cgroups=ours(map(str, groups)),
        devices=ours(path.name for path in _entries(Path("/sys/class/net"))),
        folders=frozenset([*folders, *(str(ROOT / lab) for lab in labs if (ROOT / lab).exists())]),
        sysctls=tuple(Path("/proc/sys", each).read_text() for each in SYSCTLS),
    )


def _is_foreign(mount: str) -> bool:
    """Whether it is the folder of namespaces, or a namespace that no lab made."""
    return mount == str(RUN_NETNS) or (mount.startswith(f"{RUN_NETNS}/") and "/hn-" not in mount)


def new_marker() -> str:
    """A word that is in no process of the machine but those that we give it to."""
    return f"marker-{uuid.uuid4().hex}"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _marked(marker: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:  # gone, or a kernel thread
            continue
        if marker.encode() in text:
            found.append(f"{process.name} {(process / 'cmdline').read_bytes()!r}")
    return found
