"""The control plane of Kubernetes: etcd and kube-apiserver, and on request controller manager and scheduler.

It is the real thing, so whatever holds against it holds in production. Alone (``ControlPlane.local``) it serves
tests of the API on loopback with free ports; in a lab it runs in a namespace of its own with the usual ports.

etcd runs without fsync: its data need not survive a power failure, and a laptop's disk is no longer the limit.
The API server's own reconciler of the ``kubernetes`` Service is off on loopback, where it cannot work.
"""

import contextlib
import functools
import socket
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Self

from msgspec import Struct

from hybridnet.lab.api import Api
from hybridnet.lab.binaries import API, Binaries, require
from hybridnet.lab.certificates import Authority, kubeconfig, private_key, write_private
from hybridnet.lab.processes import HERE, Place, Process, run, start, wait_for
from hybridnet.model.address import IPAddress

LOOPBACK = IPv4Address("127.0.0.1")
ADMIN = "lab-admin"
ADMIN_GROUP = "system:masters"
READY_TIMEOUT = 180.0
"""Seconds; 3 are usual, an emulated machine needs 54."""

_COMPONENT_USERS = {
    "kube-controller-manager": "system:kube-controller-manager",
    "kube-scheduler": "system:kube-scheduler",
}


class Endpoint(Struct, frozen=True, kw_only=True):
    """Addresses and ports of a control plane."""

    bind: str = "127.0.0.1"
    """Address to listen on."""
    advertised: IPAddress = LOOPBACK
    """Address that nodes and pods use."""
    reached: IPAddress = LOOPBACK
    """Address that we, outside, use."""
    port: int = 6443
    etcd_ports: tuple[int, int] = (2379, 2380)
    """Ports for clients and for peers, always on loopback."""
    service_ranges: tuple[str, ...] = ("10.96.0.0/16", "fd96::/112")

    @property
    def url(self) -> str:
        """The API server as we reach it."""
        return f"https://{self.reached}:{self.port}"

    @property
    def inner_url(self) -> str:
        """The API server as nodes reach it."""
        return f"https://{self.advertised}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it serves this machine's loopback alone."""
        return self.advertised.is_loopback


class ControlPlane:
    """Processes and credentials of one control plane, kept in one folder."""

    def __init__(
        self,
        folder: Path,
        binaries: Binaries,
        endpoint: Endpoint,
        place: Place = HERE,
        *,
        controllers: bool = False,
        pdeathsig: bool = False,
    ) -> None:
        """Prepare; nothing is started yet. *controllers*: there will be controller manager and scheduler.

        *pdeathsig*: the processes die with the thread that calls :meth:`start`.
        """
        self.folder = folder
        self.endpoint = endpoint
        self.authority = Authority.load_or_create(folder / "pki", "hybridnet-lab")
        self.processes: dict[str, Process] = {}
        self._binaries = binaries
        self._place = place
        self._controllers = controllers
        self._pdeathsig = pdeathsig

    @classmethod
    @contextlib.contextmanager
    def local(cls) -> Iterator[Self]:
        """etcd and kube-apiserver on loopback, ready to serve, gone afterwards. BinaryMissing, NotReady."""
        binaries = require(API)
        etcd, peer, api = _free_ports(3)
        endpoint = Endpoint(port=api, etcd_ports=(etcd, peer))
        with tempfile.TemporaryDirectory(prefix="hybridnet-api-") as folder:
            plane = cls(Path(folder), binaries, endpoint, pdeathsig=True)
            try:
                plane.start()
                plane.wait_ready()
                yield plane
            finally:
                plane.stop()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubeconfig_for(ADMIN, (ADMIN_GROUP,))

    def kubeconfig_for(self, user: str, groups: tuple[str, ...] = (), *, inner: bool = False) -> Path:
        """A kubeconfig with a client certificate for *user*; *inner*: for use on nodes. Made once."""
        path = self.folder / "kubeconfigs" / f"{user.replace(':', '-')}{'-inner' if inner else ''}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            server = self.endpoint.inner_url if inner else self.endpoint.url
            pair = self.authority.client(user, groups)
            write_private(path, kubeconfig(server, self.authority.pair.certificate, pair, user))
        return path

    @functools.cached_property
    def api(self) -> Api:
        """The API server with the administrator's rights."""
        pair = self.authority.client(ADMIN, (ADMIN_GROUP,))
        certificate, key = pair.write(self._pki(""), "admin")
        return Api(str(self.endpoint.reached), self.endpoint.port, self._pki("ca.crt"), certificate, key)

    def kubectl(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
        """Run kubectl as administrator and return its output. CommandFailed."""
        command = [self._binaries["kubectl"], f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(command, stdin=stdin, check=check).stdout.decode()

    def start(self) -> None:
        """Start etcd and the API server. Does not wait: see :meth:`wait_ready`."""
        self._write_credentials()
        self.start_etcd()
        self.start_api_server()

    def start_controllers(self) -> None:
        """Start controller manager and scheduler; they give up when the API server is not ready."""
        self._start("kube-controller-manager", self._controller_manager_flags())
        self._start("kube-scheduler", self._scheduler_flags())

    def start_etcd(self) -> None:
        """Start etcd alone; its data survive :meth:`stop`."""
        client, peer = (f"http://127.0.0.1:{port}" for port in self.endpoint.etcd_ports)
        flags = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
        self._start("etcd", flags)

    def start_api_server(self) -> None:
        """Start kube-apiserver alone, for example after :meth:`stop_api_server`."""
        self._start("kube-apiserver", self._api_server_flags())

    def stop_api_server(self) -> None:
        """Make an outage: nobody answers on the API server's port any more."""
        self.processes.pop("kube-apiserver").stop()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until ``/readyz`` says ok. NotReady after *timeout* seconds, ProcessDied."""
        wait_for("the API server", self.is_ready, timeout=timeout, processes=[*self.processes.values()])

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says ok right now."""
        return self.api.is_ready()

    def stop(self) -> None:
        """End all processes; a process that clients wait for goes last."""
        for name in reversed([*self.processes]):
            self.processes.pop(name).stop()

    def _start(self, name: str, flags: dict[str, object]) -> None:
        if name in self.processes and self.processes[name].is_running:
            return
        command = [self._binaries[name], *(f"--{key}={value}" for key, value in flags.items())]
        log = self.folder / "logs" / f"{name}.log"
        self.processes[name] = start(name, command, log, self._place, pdeathsig=self._pdeathsig)

    def _pki(self, name: str) -> Path:
        return self.folder / "pki" / name

    def _write_credentials(self) -> None:
        if self._pki("service-accounts.key").exists():
            return
        endpoint = self.endpoint
        addresses = {
            endpoint.advertised,
            endpoint.reached,
            LOOPBACK,
            *map(_first_address, endpoint.service_ranges),
        }
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        server = self.authority.server("kube-apiserver", sorted(addresses, key=str), names)
        server.write(self._pki(""), "kube-apiserver")
        self.authority.client("kube-apiserver-kubelet-client", (ADMIN_GROUP,)).write(
            self._pki(""), "kubelet-client"
        )
        write_private(self._pki("service-accounts.key"), private_key())

    def _api_server_flags(self) -> dict[str, object]:
        endpoint = self.endpoint
        flags: dict[str, object] = {
            "bind-address": endpoint.bind,
            "advertise-address": endpoint.advertised,
            "secure-port": endpoint.port,
            "etcd-servers": f"http://127.0.0.1:{endpoint.etcd_ports[0]}",
            "client-ca-file": self._pki("ca.crt"),
            "tls-cert-file": self._pki("kube-apiserver.crt"),
            "tls-private-key-file": self._pki("kube-apiserver.key"),
            "requestheader-client-ca-file": self._pki("ca.crt"),
            "requestheader-allowed-names": "front-proxy-client",
            "kubelet-client-certificate": self._pki("kubelet-client.crt"),
            "kubelet-client-key": self._pki("kubelet-client.key"),
            "kubelet-certificate-authority": self._pki("ca.crt"),
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._pki("service-accounts.key"),
            "service-account-signing-key-file": self._pki("service-accounts.key"),
            "service-cluster-ip-range": ",".join(endpoint.service_ranges),
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "profiling": "false",
        }
        if endpoint.is_local:
            flags["endpoint-reconciler-type"] = "none"
        if not self._controllers:  # nobody makes the default service account that pods would need
            flags["disable-admission-plugins"] = "ServiceAccount"
        return flags

    def _controller_manager_flags(self) -> dict[str, object]:
        return {
            **self._component_flags("kube-controller-manager"),
            "controllers": "*,-nodeipam",
            "cluster-signing-cert-file": self._pki("ca.crt"),
            "cluster-signing-key-file": self._pki("ca.key"),
            "root-ca-file": self._pki("ca.crt"),
            "service-account-private-key-file": self._pki("service-accounts.key"),
            "use-service-account-credentials": "true",
        }

    def _scheduler_flags(self) -> dict[str, object]:
        return self._component_flags("kube-scheduler")

    def _component_flags(self, name: str) -> dict[str, object]:
        config = self.kubeconfig_for(_COMPONENT_USERS[name], inner=True)
        return {
            "kubeconfig": config,
            "authentication-kubeconfig": config,
            "authorization-kubeconfig": config,
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }


def _first_address(network: str) -> IPAddress:
    """The address of the ``kubernetes`` Service: the first of the range."""
    return ip_network(network)[1]


def _free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody uses, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
