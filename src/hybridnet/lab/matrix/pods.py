"""The pods and Services of a matrix run, made through the API server, and whom else the lab has.

Three pods of each kind, two on one node and one on another, so every placement has a pair; a Service for each but
the first. Every run has a Kubernetes namespace of its own: that of the former run may still be going. Their MTU is
what the documents promise, not what the agent has set: the tester must not believe the tested.
"""

import http
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import msgspec

from hybridnet.lab.cluster import Cluster
from hybridnet.lab.errors import CommandFailed, LabError, NotReady
from hybridnet.lab.image import IMAGE
from hybridnet.lab.matrix.cells import Endpoint, Kind
from hybridnet.lab.matrix.responder import PORT
from hybridnet.lab.matrix.run import Service
from hybridnet.lab.processes import wait_for
from hybridnet.lab.state import NetworkPlugin, ProxyMode
from hybridnet.lab.system import STATE
from hybridnet.model.labels import IP_FAMILY, NETWORK_TYPE

PODS_SECONDS = 90.0
FABRIC_MTU = 1500
"""Of every NIC and cable of the lab, in bytes."""
_VXLAN_OVERHEAD = 50
"""Bytes around an inner IP packet when the tunnel's ends have IPv4 addresses (RFC 7348)."""
_MTU = {Kind.OVERLAY: FABRIC_MTU - _VXLAN_OVERHEAD, Kind.UNDERLAY: FABRIC_MTU}
_TYPES = {Kind.OVERLAY: "Overlay", Kind.UNDERLAY: "Underlay"}
_NAMESPACES = "/api/v1/namespaces"

Manifest = dict[str, Any]


@contextmanager
def participants(cluster: Cluster, *, keep: bool = False) -> Iterator[tuple[list[Endpoint], list[Service]]]:
    """Pods, nodes and the external host, and the Services; the pods go afterwards unless *keep*.

    NotReady when the pods do not start, LabError when the lab has another network plugin.
    """
    if cluster.description.network_plugin is not NetworkPlugin.HYBRIDNET:
        raise LabError(
            "the pods of this lab have another network plugin: make a lab without --network-plugin"
        )
    namespace = f"matrix-{secrets.token_hex(3)}"
    try:
        pods, services = _create(cluster, namespace)
        endpoints = [*_pods(cluster, namespace, pods), *_hosts(cluster)]
        yield endpoints, _services(services, endpoints)
    finally:
        if not keep:
            cluster.plane.api.request("DELETE", f"{_NAMESPACES}/{namespace}")


def _create(cluster: Cluster, namespace: str) -> tuple[list[str], list[Manifest]]:
    """Names of the pods, and the Services as the API server has made them."""
    _post(cluster, _NAMESPACES, {"metadata": {"name": namespace}})
    names = cluster.topology.node_names
    places = {"a": names[0], "b": names[0], "c": names[1 % len(names)]}
    pods = {f"{kind}-{suffix}": _pod(kind, node) for kind in _TYPES for suffix, node in places.items()}
    for name, manifest in pods.items():
        manifest["metadata"] |= {"name": name, "labels": {"app": name}}
        _post(cluster, f"{_NAMESPACES}/{namespace}/pods", manifest)
    if cluster.description.kube_proxy is ProxyMode.NONE:
        return list(pods), []
    backends = [name for name in pods if not name.endswith("-a")]
    path = f"{_NAMESPACES}/{namespace}/services"
    return list(pods), [_post(cluster, path, _service(name)) for name in backends]


def _pod(kind: Kind, node: str) -> Manifest:
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    return {
        "metadata": {"annotations": {NETWORK_TYPE: _TYPES[kind], IP_FAMILY: "DualStack"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


def _service(name: str) -> Manifest:
    ports = [{"name": p.lower(), "protocol": p, "port": PORT} for p in ("TCP", "UDP")]
    spec = {"selector": {"app": name}, "ipFamilyPolicy": "PreferDualStack", "ports": ports}
    return {"metadata": {"name": name}, "spec": spec}


def _post(cluster: Cluster, path: str, manifest: Manifest) -> Manifest:
    """Create an object. A new namespace refuses pods until it has its service account: that is waited for."""
    made: list[Manifest] = []

    def create() -> bool:
        status, body = cluster.plane.api.request("POST", path, msgspec.json.encode(manifest))
        if status == http.HTTPStatus.CREATED:
            made.append(msgspec.json.decode(body))
        elif status != http.HTTPStatus.FORBIDDEN or b"serviceaccount" not in body:
            raise CommandFailed(f"cannot create {manifest['metadata']['name']}: {status} {body.decode()}")
        return bool(made)

    wait_for(f"the service account for {path}", create, timeout=PODS_SECONDS, interval=0.2)
    return made[0]


def _pods(cluster: Cluster, namespace: str, names: list[str]) -> list[Endpoint]:
    """The pods as soon as all of them run. NotReady with what their events say."""
    running: dict[str, Manifest] = {}

    def all_run() -> bool:
        _, body = cluster.plane.api.request("GET", f"{_NAMESPACES}/{namespace}/pods")
        for pod in msgspec.json.decode(body)["items"]:
            if pod["status"].get("phase") == "Running":
                running[pod["metadata"]["name"]] = pod
        return len(running) == len(names)

    try:
        wait_for("the pods of the matrix", all_run, timeout=PODS_SECONDS, interval=0.3)
    except NotReady as error:
        missing = ", ".join(sorted(set(names) - set(running)))
        events = cluster.kubectl("get", "events", f"--namespace={namespace}", check=False)
        raise NotReady(f"{error}; not running: {missing}\n{events}") from error
    namespaces = _network_namespaces(cluster, namespace)
    return [_pod_endpoint(running[name], namespaces) for name in names]


def _pod_endpoint(pod: Manifest, namespaces: dict[str, str]) -> Endpoint:
    name = pod["metadata"]["name"]
    if name not in namespaces:
        raise NotReady(
            f"no agent has a record of pod {name}: 'hybridnet lab logs {pod['spec']['nodeName']}/agent'"
        )
    kind = Kind(name.partition("-")[0])
    addresses = tuple(ip_address(a["ip"]) for a in pod["status"]["podIPs"])
    return Endpoint(name, kind, pod["spec"]["nodeName"], namespaces[name], addresses, _MTU[kind])


def _network_namespaces(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Pod name to the path of its network namespace, as the machine sees it."""
    found = {}
    for name in cluster.topology.node_names:
        node = cluster.node(name)
        for path in node.path(STATE).glob("*.json"):
            record = msgspec.json.decode(path.read_bytes())
            if record["namespace"] == namespace:
                inside = record["netns"].replace("/var/run/", "/run/")  # a link that would lead to our /run
                found[record["pod"]] = str(node.path(inside))
    return found


def _hosts(cluster: Cluster) -> list[Endpoint]:
    """The nodes that have pods, and the external host."""
    topology = cluster.topology
    hosts = [(Kind.NODE, topology.node(name), name) for name in topology.node_names[:2]]
    hosts.append((Kind.EXTERNAL, topology.external, ""))
    return [
        Endpoint(
            host.role,
            kind,
            node,
            str(topology.namespace_path(host.role)),
            tuple(each.ip for each in host.addresses),
            FABRIC_MTU,
        )
        for kind, host, node in hosts
    ]


def _services(services: list[Manifest], endpoints: list[Endpoint]) -> list[Service]:
    by_name = {e.name: e for e in endpoints}
    return [
        Service(tuple(map(ip_address, s["spec"]["clusterIPs"])), by_name[s["metadata"]["name"]])
        for s in services
    ]
