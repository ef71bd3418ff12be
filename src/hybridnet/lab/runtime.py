"""What runs on every node: containerd, kubelet, kube-proxy, with the least that makes them run in a namespace.

Each deviation from a stock configuration is there because namespaces of one machine share what machines do not:
the score of the OOM killer, the size of the connection table, swap, disk space. The rest is as kubeadm does it.
"""

from pathlib import Path

import msgspec

from hybridnet.lab.binaries import Binaries, find_program
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.lab.image import PAUSE
from hybridnet.lab.node import Node
from hybridnet.lab.processes import Process, is_listening, run, start, wait_for
from hybridnet.lab.state import ProxyMode
from hybridnet.lab.topology import addresses_of

SOCKET = "/run/containerd/containerd.sock"
MAX_PODS = 250
_CREDENTIALS = "/var/lib/kubelet/pki"

_CONTAINERD = f"""\
version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


class Runtime:
    """The programs of one node."""

    def __init__(self, node: Node, plane: ControlPlane, binaries: Binaries, logs: Path) -> None:
        """Prepare; *logs*: folder for the log files of this node."""
        self.node = node
        self._plane = plane
        self._binaries = binaries
        self._logs = logs

    def start_containerd(self, archive: Path) -> Process:
        """Start the container runtime, wait for it, and load the images of *archive*."""
        self.node.write("/etc/containerd/config.toml", _CONTAINERD)
        containerd = self._start("containerd", [find_program("containerd")])
        wait_for(
            f"containerd of {self.node.name}",
            lambda: is_listening(self.node.path(SOCKET)),
            timeout=120,
            processes=[containerd],
        )
        run(["ctr", "--namespace=k8s.io", "image", "import", str(archive)], self.node.shell, timeout=300)
        return containerd

    def start_kubelet(self) -> Process:
        """Start kubelet, which registers the node."""
        name = self.node.name
        addresses = addresses_of(self.node.host.addresses)
        authority = self._plane.authority
        serving = authority.server(name, addresses)
        self.node.write(f"{_CREDENTIALS}/ca.crt", authority.pair.certificate)
        self.node.write(f"{_CREDENTIALS}/kubelet.crt", serving.certificate)
        self.node.write(f"{_CREDENTIALS}/kubelet.key", serving.key, 0o600)
        self.node.write("/var/lib/kubelet/config.yaml", msgspec.json.encode(self.kubelet_configuration()))
        kubeconfig = self._plane.kubeconfig_for(f"system:node:{name}", ("system:nodes",), inner=True)
        command = [
            self._binaries["kubelet"],
            "--config=/var/lib/kubelet/config.yaml",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={name}",
            f"--node-ip={','.join(map(str, addresses))}",
        ]
        return self._start("kubelet", command)

    def start_kube_proxy(self, mode: ProxyMode) -> Process:
        """Start kube-proxy, which programs Services."""
        kubeconfig = self._plane.kubeconfig_for("system:kube-proxy", inner=True)
        command = [
            self._binaries["kube-proxy"],
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.node.name}",
            f"--proxy-mode={mode}",
            "--conntrack-max-per-core=0",  # only the initial namespace has this setting
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            "--oom-score-adj=0",
        ]
        return self._start("kube-proxy", command)

    def kubelet_configuration(self) -> dict[str, object]:
        """The KubeletConfiguration (kubelet.config.k8s.io/v1beta1) of this node."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{_CREDENTIALS}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{_CREDENTIALS}/kubelet.crt",
            "tlsPrivateKeyFile": f"{_CREDENTIALS}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.node.cgroup_root,
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "evictionHard": {"nodefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": "/var/lib/kubelet/plugins/volume",  # the default is below /usr
            "resolvConf": "",
            "oomScoreAdj": 0,
            "readOnlyPort": 0,
            "maxPods": MAX_PODS,
            "registryPullQPS": 0,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "eventRecordQPS": 0,
            "serializeImagePulls": False,
        }

    def _start(self, name: str, command: list[str]) -> Process:
        return start(name, command, self._logs / f"{name}.log", self.node.place)
