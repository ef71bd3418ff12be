"""A throw-away namespace, changed and read back by programs that are not ours."""

from pathlib import Path
from subprocess import run

from hybridnet.kernel.link import set_up
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.netlink import Rtnl


class Net:
    """A namespace with its own rtnetlink socket, and the programs of iproute2 and nftables inside it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.namespace = Namespace.open(path)
        self.rtnl = Rtnl(self.namespace)
        set_up(self.rtnl, "lo")

    def shell(self, *command: str, check: bool = True) -> str:
        """Run a program inside; its output."""
        done = run(["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def ip(self, arguments: str) -> str:
        return self.shell("ip", *arguments.split())

    def add_device(self, name: str, *addresses: str) -> None:
        """A device with carrier; its other end is called ``NAME-far``."""
        self.ip(f"link add {name} type veth peer name {name}-far")
        self.ip(f"link set {name}-far up")
        self.ip(f"link set {name} up")
        for address in addresses:
            self.ip(f"address add {address} dev {name}" + (" nodad" if ":" in address else ""))

    def index_of(self, name: str) -> int:
        """The index of a device, from ``ip``."""
        return int(self.ip(f"-o link show dev {name}").partition(":")[0])

    def close(self) -> None:
        self.rtnl.close()
        self.namespace.close()
