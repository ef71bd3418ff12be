"""One node of the lab with a pod on it, without an API server: small enough for an emulated machine.

Prints what it saw as JSON: the pod's cgroup, and what was left of the lab after its end.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hybridnet.lab import cluster, fabric, image, node, plugin, reaper, state
from hybridnet.lab.binaries import require
from hybridnet.lab.processes import start, wait_for
from hybridnet.lab.runtime import Runtime
from hybridnet.lab.state import Description, NetworkPlugin, ProxyMode

NAME, PATIENCE = "vm", 600
MARKER = b"sleep\x0012345"
ALONE = {
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "staticPodPath": "/var/lib/kubelet/manifests",
}


def pod_process() -> Path | None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(MARKER):
                return process
        except OSError:
            continue
    return None


def run_pod(description: Description) -> str:
    """Bring the node and the pod up; the pod's cgroups."""
    lab = cluster.Cluster(description, require())
    with ThreadPoolExecutor(4) as executor:
        fabric.create(lab.topology, executor)
    archive = lab.folder / "images.tar"
    image.write_archive(archive)
    programs = {path.parent for path in lab.binaries.paths.values()}
    booted = node.boot(lab.topology, "node1", lab.folder, programs)
    runtime = Runtime(booted, lab.plane, lab.binaries, lab.folder / "logs")
    runtime.start_containerd(archive)
    plugin.install_bridge(lab.topology, booted)
    configuration = runtime.kubelet_configuration() | ALONE
    for key in ("tlsCertFile", "tlsPrivateKeyFile"):
        del configuration[key]
    booted.write("/var/lib/kubelet/config.yaml", json.dumps(configuration))
    container = {"name": "c", "image": image.IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "12345"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    booted.write("/var/lib/kubelet/manifests/p.json", json.dumps(pod))
    command = [lab.binaries["kubelet"], "--config=/var/lib/kubelet/config.yaml", "--hostname-override=node1"]
    kubelet = start("kubelet", command, lab.folder / "logs" / "kubelet.log", booted.place)
    wait_for("the pod", lambda: pod_process() is not None, timeout=PATIENCE, processes=[kubelet])
    process = pod_process()
    return (process / "cgroup").read_text() if process else ""


def main() -> None:
    description = Description(
        name=NAME, nodes=1, slot=0, kube_proxy=ProxyMode.NONE, network_plugin=NetworkPlugin.BRIDGE
    )
    state.save(description)
    try:
        groups = run_pod(description)
    finally:
        cluster.down(NAME)
    left = [*reaper.remains(NAME), *([str(pod_process())] if pod_process() else [])]
    sys.stdout.write(json.dumps({"groups": groups.splitlines(), "left": left}) + "\n")


if __name__ == "__main__":
    main()
