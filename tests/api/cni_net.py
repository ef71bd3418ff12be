"""Network namespaces for the tests of the CNI contract, looked at through iproute2 and nft alone.

Names carry the process id, so that what a killed run has left can be told from what another run uses.
"""

import json
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hybridnet.kernel.namespace import RUN_NETNS, Namespace, create_named, delete_named
from hybridnet.lab.processes import Place, run
from hybridnet.model.address import IPAddress
from tests.api.cni_ping import answers

PREFIX = "hn-cnit-"


class Net:
    """One namespace, its loopback up; gone with :meth:`close`."""

    def __init__(self, role: str) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{role}"
        self.path = create_named(self.name)
        self.place = Place(network=self.path)
        self.ip("link set lo up")

    def close(self) -> None:
        """Unpin it; twice is no error."""
        delete_named(self.name)

    def shell(self, *command: str, check: bool = True) -> str:
        """Run a program inside; its output. CommandFailed."""
        return run(command, self.place, check=check).stdout.decode()

    def succeeds(self, *command: str) -> bool:
        return run(command, self.place, check=False).returncode == 0

    def ip(self, *lines: str) -> None:
        """Run ``ip`` commands."""
        run(["ip", "-batch", "-"], self.place, stdin="\n".join([*lines, ""]).encode())

    def show(self, arguments: str) -> list[dict[str, Any]]:
        """What ``ip -json`` prints; nothing when it fails, as for a table that does not exist."""
        output = self.shell("ip", "-json", "-details", *arguments.split(), check=False)
        found: list[dict[str, Any]] = json.loads(output or "[]")
        return [entry for entry in found if entry]

    def link(self, name: str) -> dict[str, Any]:
        """One device; empty when there is none."""
        return next((entry for entry in self.show("link show") if entry["ifname"] == name), {})

    def sysctl(self, key: str, value: str = "") -> str:
        """Read a setting, or write it."""
        return self.shell("sysctl", "-n", *(["-w", f"{key}={value}"] if value else [key])).strip()

    def pings(self, address: IPAddress | str, size: int = 84, seconds: float = 2.0) -> bool:
        """Whether *address* answers a packet of *size* bytes that may not be fragmented."""
        with Namespace.open(self.path) as inside:
            return answers(inside, ip_address(address), size, seconds)


def remove_orphans() -> None:
    """Remove the namespaces of runs that are dead."""
    for path in RUN_NETNS.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            delete_named(path.name)
