"""Network namespaces for benchmarks: nodes with one NIC each in a switch, gone when the context ends.

Names begin with ``hnbench-`` and the id of the process, so several benchmarks can run at once, and what a killed
one left is found and removed by the next. Written as ``ip -batch`` text: what is measured must not build its own
yardstick.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from hybridnet.kernel.namespace import RUN_NETNS, create_named, delete_named
from hybridnet.lab.processes import HERE, Place, run

PREFIX = "hnbench"
SEGMENT = ("172.31.0.", "/24", "fd31::", "/64")
FIRST_NODE = 11


def name_of(role: str) -> str:
    """Name of a namespace of this process."""
    return f"{PREFIX}-{os.getpid()}-{role}"


def path_of(role: str) -> Path:
    """Path of a namespace of this process."""
    return RUN_NETNS / name_of(role)


def addresses_of(number: int) -> tuple[str, str]:
    """Addresses of the node with this number, from 0: 172.31.0.11/24 and fd31::11/64."""
    host = FIRST_NODE + number
    v4, v4_length, v6, v6_length = SEGMENT
    return f"{v4}{host}{v4_length}", f"{v6}{host}{v6_length}"


@contextlib.contextmanager
def switched(nodes: Sequence[str], *, mtu: int = 1500) -> Iterator[None]:
    """Namespaces called *nodes*, each with eth0 of *mtu* bytes in one switch; everything of us goes at the end."""
    remove_orphans()
    with interruptible(_remove_own):
        make("switch")
        ip("switch", ["link add br0 type bridge mcast_snooping 0", "link set br0 up"])
        for number, node in enumerate(nodes):
            make(node)
            _plug(node, number, mtu)
        yield


@contextlib.contextmanager
def interruptible(clean_up: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does; *clean_up* runs at the end, and nothing interrupts it."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        clean_up()
        for number, handler in before.items():
            signal.signal(number, handler)


def make(role: str) -> Path:
    """One more namespace, its loopback up."""
    path = create_named(name_of(role))
    ip(role, ["link set lo up"])
    return path


def remove(role: str) -> None:
    """Let a namespace go."""
    delete_named(name_of(role))


def ip(role: str, commands: Iterable[str]) -> None:
    """Run ``ip`` commands in a namespace. CommandFailed."""
    run(["ip", "-batch", "-"], inside(role), stdin="\n".join([*commands, ""]).encode())


def inside(role: str) -> Place:
    """Where programs of a namespace run; an empty role: here."""
    return Place(network=path_of(role)) if role else HERE


def remove_orphans() -> None:
    """Remove namespaces of benchmarks that were killed."""
    for path in RUN_NETNS.glob(f"{PREFIX}-*"):
        owner = path.name.split("-")[1]
        if not Path(f"/proc/{owner}").exists():
            delete_named(path.name)


def _remove_own() -> None:
    for path in RUN_NETNS.glob(f"{PREFIX}-{os.getpid()}-*"):
        delete_named(path.name)


def _plug(node: str, number: int, mtu: int) -> None:
    switch = name_of("switch")
    ip(node, [f"link add eth0 mtu {mtu} type veth peer name {node} mtu {mtu} netns {switch}"])
    ip("switch", [f"link set dev {node} master br0 up"])
    run(["sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.eth0.accept_dad=0"], inside(node))
    ip(node, [*(f"address add {a} dev eth0" for a in addresses_of(number)), "link set eth0 up"])
