"""A node as the container runtime sees it: real kernel namespaces, a real agent, a real API server.

The node has eth0 on a segment where a router answers; the test plays kubelet, runtime and manager. What the agent
has made is read back with iproute2 and nft.
"""

import contextlib
import itertools
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_interface
from pathlib import Path

from hybridnet.lab import plugin, system
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.lab.processes import Process, run, start, wait_for
from tests.api import cni_faults
from tests.api.cni_net import Net
from tests.api.cni_objects import Objects, digest, uid_of
from tests.api.cni_path import ApiPath
from tests.api.cni_shim import Sandbox, Shim
from tests.api.patience import SECONDS

NODE_ADDRESSES = ("172.31.0.11/24", "fd31::11/64")
ROUTER_ADDRESSES = ("172.31.0.1/24", "fd31::1/64", "172.31.1.1/24", "fd31:1::1/64")
OUTSIDE = ("192.0.2.1", "2001:db8::1")
"""Addresses of the router that no network of the cluster holds."""
MTU = 1500
TABLE_LOCAL = 39999
_numbers = itertools.count(1)


class World:
    """One node and all that it needs."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.name = f"cnit{next(_numbers)}"
        self.folder = folder
        self.records = folder / "sandboxes"
        self._plane = plane
        self._sandboxes: list[Sandbox] = []
        self._agent: Process | None = None
        self._stack = contextlib.ExitStack()
        self.router = self._net("router")
        self.node = self._net("node")
        self.router.ip(*(f"address add {a} dev lo{_nodad(a)}" for a in OUTSIDE))
        self.wire()
        addresses = [str(ip_interface(a).ip) for a in NODE_ADDRESSES]
        self.objects = Objects(plane.kubeconfig, self.name, addresses)
        self._stack.callback(self.objects.close)
        self.path = ApiPath(self.node.path, plane.endpoint.port)
        self._stack.callback(self.path.close)
        self.shim = Shim(plugin.cni_executable(), folder / "agent.sock")
        self._stack.callback(self.stop_agent)

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    # The agent ------------------------------------------------------------------------------------------

    def launch_agent(
        self, *options: str, user: str = "", faults: bool = False, wrapper: Sequence[str] = ()
    ) -> Process:
        """Start an agent with the permissions that agents have (or those of *user*); does not wait.

        *faults*: it fails where :meth:`inject` says. *wrapper*: a program that starts it.
        """
        groups = () if user else (system.AGENTS_GROUP,)
        kubeconfig = self._plane.kubeconfig_for(user or f"system:hybridnet:node:{self.name}", groups)
        self.log = self.folder / f"agent-{next(_numbers)}.log"
        command = [
            *wrapper,
            *self._program(faults),
            f"--node-name={self.name}",
            f"--kubeconfig={kubeconfig}",
            f"--socket={self.shim.socket}",
            "--nic=eth0",
            f"--state-dir={self.records}",
            *options,
        ]
        self._agent = start("agent", command, self.log, self.node.place, pdeathsig=True)
        return self._agent

    def start_agent(self, *options: str, faults: bool = False) -> Process:
        """Start an agent and wait until it answers ADD."""
        agent = self.launch_agent(*options, faults=faults)
        self.wait_for_log("serving")
        return agent

    def ensure_agent(self) -> None:
        """Start an agent if a test that failed has left none."""
        if self._agent is None or not self._agent.is_running:
            self.start_agent()

    def stop_agent(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """End the agent; no error when there is none."""
        if self._agent is not None:
            self._agent.stop(sig)
            self._agent = None

    def restart_agent(self, *options: str) -> Process:
        """SIGTERM, then a new agent that serves."""
        self.stop_agent(signal.SIGTERM)
        return self.start_agent(*options)

    def inject(self, point: str) -> None:
        """Let the agent fail once at *point* of ``cni_faults``, from now on."""
        self._order.write_text(point)

    @property
    def _order(self) -> Path:
        return self.folder / "fault"

    def _program(self, faults: bool) -> list[str]:
        if faults:
            return [sys.executable, str(Path(cni_faults.__file__)), str(self._order), "agent"]
        return system.program("agent")

    @property
    def agent(self) -> Process:
        assert self._agent is not None
        return self._agent

    def logged(self, words: str) -> bool:
        """Whether the log of the present agent says so."""
        return self.log.exists() and words in self.log.read_text()

    def wait_for_log(self, words: str) -> None:
        self.eventually(f"the agent says '{words}'", lambda: self.logged(words))

    def eventually(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for *condition*; fails when the agent has ended meanwhile."""
        wait_for(what, condition, timeout=SECONDS, processes=[self._agent] if self._agent else [])

    def connections(self) -> int:
        """How many callers the agent has at this moment."""
        shown = run(["ss", "-xH", "state", "established"]).stdout.decode()
        names = (str(self.shim.socket), str(self.shim.socket.with_suffix(".new")))
        return sum(any(name in line for name in names) for line in shown.splitlines())

    def is_ready(self) -> bool:
        """What the agent says of the node in its NodeInfo."""
        conditions = self.objects.node_info().get("status", {}).get("conditions", [])
        return [c["status"] for c in conditions if c["type"] == "Ready"] == ["True"]

    # Pods -----------------------------------------------------------------------------------------------

    def sandbox(self, pod: str, container: str = "", interface: str = "eth0") -> Sandbox:
        """A sandbox of *pod*, its namespace made, nothing in it."""
        number = next(_numbers)
        made = Sandbox(
            pod=pod,
            uid=uid_of(pod),
            container=container or digest(f"{pod} {number}"),
            net=self._net(f"pod{number}"),
            namespace=self.objects.namespace,
            interface=interface,
        )
        self._sandboxes.append(made)
        return made

    def end_pods(self) -> None:
        """End all sandboxes, as a runtime does, and release all addresses, as the manager does."""
        for sandbox in self._sandboxes:
            self.shim.delete(sandbox)
            sandbox.net.close()
        self._sandboxes.clear()
        self.objects.take_all()

    # What is there --------------------------------------------------------------------------------------

    def state(self) -> set[str]:
        """Everything about pods that the node holds, in words: two are equal when nothing was left behind."""
        found = {f"record {path.name}" for path in self.records.glob("*")}
        found |= {f"device {name}" for name in self.pod_devices()}
        for version in (4, 6):
            routes = self.node.show(f"-{version} route show table {TABLE_LOCAL}")
            found |= {f"route {entry['dst']} {entry.get('dev')}" for entry in routes}
            proxies = self.node.show(f"-{version} neighbour show proxy")
            found |= {f"proxy {entry['dst']} {entry['dev']}" for entry in proxies}
            found |= {f"element {key}" for key in self.elements(version)}
        return found

    def pod_devices(self) -> set[str]:
        names = {str(link["ifname"]) for link in self.node.show("link show")}
        return {name for name in names if name.startswith("hybr") and not name.startswith("hybrvx")}

    def elements(self, version: int) -> set[str]:
        """Addresses that have a traffic class."""
        output = self.node.shell(
            "nft", "-j", "list", "map", "inet", "hybridnet", f"pod{version}", check=False
        )
        maps = [
            entry["map"] for entry in json.loads(output or '{"nftables": []}')["nftables"] if "map" in entry
        ]
        return {str(key) for found in maps for key, _ in found.get("elem", [])}

    def _net(self, role: str) -> Net:
        net = Net(f"{self.name}-{role}")
        self._stack.callback(net.close)
        return net

    def wire(self) -> None:
        """Node and router on one wire; the node has no default route."""
        self.router.ip(f"link add eth0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns {self.node.name}")
        for net, addresses in ((self.node, NODE_ADDRESSES), (self.router, ROUTER_ADDRESSES)):
            net.ip("link set eth0 up", *(f"address add {a} dev eth0{_nodad(a)}" for a in addresses))


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""


@contextlib.contextmanager
def world(plane: ControlPlane, folder: Path) -> Iterator[World]:
    """A world without an agent."""
    made = World(plane, folder)
    try:
        yield made
    finally:
        made.close()
