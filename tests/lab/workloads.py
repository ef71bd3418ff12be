"""What the tests of the whole cluster create, and how they look at it: through kubectl, as an operator would."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hybridnet.kernel.namespace import Namespace
from hybridnet.lab.cluster import Cluster
from hybridnet.lab.image import IMAGE
from hybridnet.lab.system import STATE

TYPE = "networking.alibaba.com/network-type"
FAMILY = "networking.alibaba.com/ip-family"
NETWORK = "networking.alibaba.com/specified-network"
SUBNET = "networking.alibaba.com/specified-subnet"

Manifest = dict[str, Any]


def template(labels: dict[str, str], annotations: dict[str, str], node: str = "") -> Manifest:
    """A pod template of the lab's image; *node* pins it."""
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def pod(name: str, annotations: dict[str, str], node: str = "") -> Manifest:
    body = template({"app": name}, annotations, node)
    body["metadata"]["name"] = name
    return {"apiVersion": "v1", "kind": "Pod", **body}


def workload(
    kind: str, name: str, replicas: int, annotations: dict[str, str], labels: dict[str, str] | None = None
) -> Manifest:
    """A Deployment or StatefulSet."""
    labels = {"app": name, **(labels or {})}
    spec: Manifest = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template(labels, annotations),
    }
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def apply(cluster: Cluster, *manifests: Manifest, namespace: str = "default") -> None:
    document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    cluster.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=msgspec.json.encode(document))


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[str]:
    """A Kubernetes namespace of one test; gone, with all that was in it, afterwards."""
    cluster.kubectl("create", "namespace", name)
    account = ("get", "serviceaccount", "default", "-n", name, "--ignore-not-found", "-o", "name")
    try:
        eventually("the namespace can have pods", lambda: cluster.kubectl(*account), 90)
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        eventually(f"namespace {name} is gone", lambda: not _exists(cluster, name), 240)


def _exists(cluster: Cluster, namespace: str) -> bool:
    return bool(cluster.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "name"))


def items(cluster: Cluster, kind: str, namespace: str = "", *options: str) -> list[Manifest]:
    scope = f"--namespace={namespace}" if namespace else "--all-namespaces"
    found: list[Manifest] = json.loads(cluster.kubectl("get", kind, scope, "-o", "json", *options))["items"]
    return found


def pods(cluster: Cluster, namespace: str, *options: str) -> list[Manifest]:
    return items(cluster, "pods", namespace, *options)


def addresses(cluster: Cluster, namespace: str) -> dict[str, list[str]]:
    """Pod name to the addresses that Kubernetes reports for it."""
    return {
        p["metadata"]["name"]: [a["ip"] for a in p["status"].get("podIPs", [])]
        for p in pods(cluster, namespace)
    }


def running(cluster: Cluster, namespace: str, count: int) -> bool:
    phases = [p["status"].get("phase") for p in pods(cluster, namespace)]
    return len(phases) == count and set(phases) <= {"Running"}


def eventually(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for *condition*; fails with *what* and the last thing it returned."""
    deadline, last = time.monotonic() + seconds, condition()
    while not last and time.monotonic() < deadline:
        time.sleep(0.5)
        last = condition()
    assert last, f"not within {seconds:g} s: {what}"


def sandboxes(cluster: Cluster, node: str) -> list[Manifest]:
    """The records of pod interfaces that the node's agent keeps."""
    folder = cluster.node(node).path(STATE)
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def pod_namespace(cluster: Cluster, namespace: str, name: str) -> Namespace:
    """The network namespace of a running pod."""
    for node in cluster.topology.node_names:
        for record in sandboxes(cluster, node):
            if (record["namespace"], record["pod"]) == (namespace, name):
                inside = record["netns"].replace("/var/run/", "/run/")  # a link that would lead to our /run
                return Namespace.open(cluster.node(node).path(inside))
    raise AssertionError(f"no node has a sandbox of {namespace}/{name}")


def process(cluster: Cluster, *arguments: str) -> int:
    """Process id of the program of this lab that was started with all *arguments*."""
    marker = str(cluster.folder)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended meanwhile
            continue
        if any(marker in w for w in words) and all(any(a in w for w in words) for a in arguments):
            found.append(int(path.parent.name))
    assert len(found) == 1, f"processes with {arguments}: {found}"
    return found[0]
