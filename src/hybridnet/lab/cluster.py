"""A whole cluster: up, found again, down.

Bringing it up is a small graph, and whatever can run at the same time does: the nodes boot and load images while
the API server starts; kubelet waits for the API server alone; nodes become ready independently of each other.
Two cores are busy all the time, so the order was chosen by measurement, not by taste.

``up`` that fails or is interrupted leaves what it made, to be looked at by ``lab logs``; ``down`` removes it.
"""

import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hybridnet.lab import cgroups, fabric, image, node, plugin, reaper, state, system
from hybridnet.lab.binaries import Binaries, require
from hybridnet.lab.controlplane import ControlPlane, Endpoint
from hybridnet.lab.errors import LabError
from hybridnet.lab.node import Node
from hybridnet.lab.processes import Place, Process, wait_for
from hybridnet.lab.progress import Progress
from hybridnet.lab.runtime import Runtime
from hybridnet.lab.state import Description, NetworkPlugin, ProxyMode
from hybridnet.lab.topology import addresses_of, free_slot, ipv4_of

NODES_TIMEOUT = 300.0
"""Seconds until all nodes must be ready."""


_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_WATCHERS, _WATCHERS_OF_NODE = 10, 7
"""Counted on a running lab."""


class Cluster:
    """A lab: its description, and handles to its parts."""

    def __init__(self, description: Description, binaries: Binaries) -> None:
        """Describe a lab that is being made or is there; see :func:`up` and :func:`find`."""
        self.description = description
        self.topology = description.topology
        self.folder = description.folder
        self.binaries = binaries
        self.plane = ControlPlane(
            self.folder, binaries, self._endpoint(), self.control_plane_place, controllers=True
        )

    @property
    def control_plane_place(self) -> Place:
        """Where the control plane and our manager run."""
        topology = self.topology
        return Place(network=topology.namespace_path("cp"), cgroup=cgroups.leaf(topology.prefix, "cp"))

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.description.kubeconfig

    def kubectl(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
        """Run kubectl as administrator and return its output. CommandFailed."""
        return self.plane.kubectl(*arguments, stdin=stdin, check=check)

    def node(self, name: str) -> Node:
        """A node that is up. LabNotFound."""
        return node.find(self.topology, name, self.folder)

    @property
    def logs(self) -> dict[str, Path]:
        """Log files by process: ``etcd``, ``node1/kubelet``."""
        return state.log_files(self.folder)

    def _endpoint(self) -> Endpoint:
        topology = self.topology
        return Endpoint(
            bind="0.0.0.0",  # noqa: S104  of its own namespace
            advertised=ipv4_of(addresses_of(topology.control_plane.addresses)),
            reached=topology.management[1].ip,
        )


def up(
    name: str,
    progress: Progress,
    *,
    nodes: int = 3,
    kube_proxy: ProxyMode = ProxyMode.IPTABLES,
    network_plugin: NetworkPlugin = NetworkPlugin.HYBRIDNET,
) -> Cluster:
    """Bring a lab up and return when its nodes are ready. LabExists and every other LabError."""
    binaries = require()
    check_limits(nodes)
    with state.locked():
        slot = free_slot(state.slots(), fabric.used_networks())
        description = Description(
            name=name, nodes=nodes, slot=slot, kube_proxy=kube_proxy, network_plugin=network_plugin
        )
        state.save(description)
    threads = ThreadPoolExecutor(max_workers=nodes + 4, thread_name_prefix="lab-up")
    with state.being_made(description), threads as executor:
        with progress.step("network: switch, router, external host"):
            fabric.create(description.topology, executor)
        cluster = Cluster(description, binaries)
        _Bringup(cluster, executor, progress).run()
    return cluster


def check_limits(nodes: int) -> None:
    """Refuse what the machine's limits would break half-way, in programs that do not say why. LabError."""
    limit, needed = int(_INOTIFY.read_text()), _WATCHERS + nodes * _WATCHERS_OF_NODE
    if needed > limit:
        raise LabError(
            f"{nodes} nodes watch files with {needed} inotify instances, this machine allows {limit}: "
            f"sysctl -w fs.inotify.max_user_instances={needed * 2}"
        )


def find(name: str) -> Cluster:
    """A lab that is there. LabNotFound."""
    return Cluster(state.load(name), require())


def down(name: str) -> None:
    """Remove a lab, however much of it there is; no error when there is nothing. CleanupFailed."""
    reaper.reap(name, state.folder_of(name))


class _Bringup:
    """The graph of one :func:`up`."""

    def __init__(self, cluster: Cluster, executor: ThreadPoolExecutor, progress: Progress) -> None:
        self._cluster = cluster
        self._executor = executor
        self._progress = progress
        self._processes: list[Process] = []
        self._archive: Future[Path] = executor.submit(self._write_images)
        self._ready: Future[None] = executor.submit(self._start_control_plane)

    def run(self) -> None:
        names = self._cluster.topology.node_names
        futures: list[Future[None]] = [self._executor.submit(self._start_node, name) for name in names]
        futures.append(self._executor.submit(self._start_system))
        self._archive.result()
        self._ready.result()
        for future in futures:
            future.result()
        with self._progress.step("nodes ready"):
            self._wait_nodes(names)

    def _write_images(self) -> Path:
        path = self._cluster.folder / "images.tar"
        image.write_archive(path)
        return path

    def _start_control_plane(self) -> None:
        plane = self._cluster.plane
        with self._progress.step("control plane: etcd, kube-apiserver"):
            plane.start()
            shutil.copy2(plane.kubeconfig, self._cluster.kubeconfig)
            plane.wait_ready()
        plane.start_controllers()

    def _start_node(self, name: str) -> None:
        cluster = self._cluster
        description = cluster.description
        programs = sorted({path.parent for path in cluster.binaries.paths.values()})
        with self._progress.step(f"{name}: namespaces, containerd, images"):
            booted = node.boot(cluster.topology, name, cluster.folder, [*programs, *system.needed_folders()])
            runtime = Runtime(booted, cluster.plane, cluster.binaries, cluster.folder / "logs" / name)
            runtime.start_containerd(self._archive.result())
        self._ready.result()
        with self._progress.step(f"{name}: kubelet, kube-proxy, network"):
            self._processes.append(runtime.start_kubelet())
            if description.kube_proxy is not ProxyMode.NONE:
                self._processes.append(runtime.start_kube_proxy(description.kube_proxy))
            if description.network_plugin is NetworkPlugin.BRIDGE:
                plugin.install_bridge(cluster.topology, booted)
            else:
                agent = system.start_agent(cluster.plane, booted, cluster.folder / "logs" / name)
                self._processes.append(agent)
                plugin.install_hybridnet(booted)

    def _start_system(self) -> None:
        self._ready.result()
        cluster = self._cluster
        if cluster.description.network_plugin is NetworkPlugin.HYBRIDNET:
            with self._progress.step("hybridnet: objects, manager"):
                manager = system.install(cluster.plane, cluster.control_plane_place, cluster.folder)
                self._processes.append(manager)

    def _wait_nodes(self, names: Iterable[str]) -> None:
        wanted = set(names)
        plane = self._cluster.plane
        wait_for(
            f"one of {', '.join(names)}",
            lambda: wanted <= plane.api.ready_nodes(),
            timeout=NODES_TIMEOUT,
            interval=0.1,
            processes=[*plane.processes.values(), *self._processes],
        )
