"""The matrix on a lab: pods and Services made through Kubernetes, probed, removed.

Three pods of each kind, two on one node and one on another, so every placement has a pair; a Service for each pod
that is not the client. The outside gets a route to an overlay pod for the cells that need it, and loses it again.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import msgspec

from hybridnet.lab.cluster import Cluster
from hybridnet.lab.errors import NotReady
from hybridnet.lab.image import IMAGE
from hybridnet.lab.matrix.cells import Cell, Endpoint, Kind
from hybridnet.lab.matrix.judge import Fabric
from hybridnet.lab.matrix.probe import probe
from hybridnet.lab.matrix.responder import PORT, Responder
from hybridnet.lab.matrix.run import MatrixResult, Service, plan_cells, run_cells
from hybridnet.lab.processes import Place, run
from hybridnet.lab.system import STATE
from hybridnet.lab.topology import OVERLAY_ID, VXLAN_PORT
from hybridnet.model.address import IPAddress
from hybridnet.model.labels import IP_FAMILY, NETWORK_TYPE

PODS_SECONDS = 60.0
_FABRIC_MTU = 1500
_KINDS = {Kind.OVERLAY: "Overlay", Kind.UNDERLAY: "Underlay"}

Progress = Callable[[str], None]


def run_matrix(
    cluster: Cluster,
    progress: Progress = lambda _: None,
    *,
    before_probing: Callable[[], None] = lambda: None,
) -> MatrixResult:
    """The whole matrix of *cluster*. NotReady when its pods do not start.

    *before_probing* is called when the pods run: a test breaks something there.
    """
    with _pods(cluster, progress) as (endpoints, services):
        before_probing()
        return asyncio.run(_probe(cluster, endpoints, services, progress))


async def _probe(
    cluster: Cluster, endpoints: list[Endpoint], services: list[Service], progress: Progress
) -> MatrixResult:
    topology = cluster.topology
    nodes = {n: tuple(i.ip for i in topology.node(n).addresses) for n in topology.node_names}
    fabric = Fabric(OVERLAY_ID, VXLAN_PORT, nodes)
    switch = str(topology.namespace_path("switch"))
    cells = plan_cells(endpoints, services)
    await _services_answer([c for c in cells if c.service is not None])

    def tell(done: int, total: int) -> None:
        progress(f"{done} of {total} cells")

    first = await run_cells([c for c in cells if c.note != "route"], switch, fabric, tell)
    routed = [c for c in cells if c.note == "route"]
    with _outside_route(cluster, routed):
        second = await run_cells(routed, switch, fabric, tell)
    return MatrixResult(first.results + second.results, first.dropped + second.dropped)


async def _services_answer(cells: list[Cell]) -> None:
    """Wait until kube-proxy has programmed the Services, so that the matrix does not judge its delay."""
    arrivals: dict[int, str] = {}
    responders = [Responder(e, arrivals) for e in {c.receiver.name: c.receiver for c in cells}.values()]
    for responder in responders:
        await responder.start()
    deadline = time.monotonic() + 15
    for cell in cells:
        error = await probe(cell, 0)
        while error and time.monotonic() < deadline:
            await asyncio.sleep(0.3)
            error = await probe(cell, 0)
    for responder in responders:
        await responder.stop()


@contextmanager
def _outside_route(cluster: Cluster, cells: list[Cell]) -> Iterator[None]:
    """The router knows the nodes of the overlay receivers of *cells*."""
    place = Place(network=cluster.topology.namespace_path("router"))
    routes = []
    for cell in {c.target: c for c in cells}.values():
        node = cluster.topology.node(cell.receiver.node)
        via = next(str(i.ip) for i in node.addresses if i.version == cell.target.version)
        routes.append((str(cell.target), via))
    try:
        for target, via in routes:
            run(["ip", "route", "replace", target, "via", via], place)
        yield
    finally:
        for target, via in routes:
            run(["ip", "route", "del", target, "via", via], place, check=False)


@contextmanager
def _pods(cluster: Cluster, progress: Progress) -> Iterator[tuple[list[Endpoint], list[Service]]]:
    """The pods and Services of the matrix, and the other endpoints of the lab."""
    namespace = f"hybridnet-matrix-{secrets.token_hex(3)}"  # the former one may still be going
    manifests = _manifests(cluster.topology.node_names, namespace)
    document = {"apiVersion": "v1", "kind": "List", "items": manifests}
    progress("pods and services")
    try:
        cluster.kubectl("apply", "--filename=-", stdin=msgspec.json.encode(document))
        _wait_running(cluster, namespace, sum(m["kind"] == "Pod" for m in manifests))
        endpoints = _endpoints(cluster, namespace)
        yield endpoints, _services(cluster, namespace, endpoints)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found", check=False)


def _manifests(nodes: tuple[str, ...], namespace: str) -> list[dict[str, Any]]:
    first, second = nodes[0], nodes[1 % len(nodes)]
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
    ]
    for kind in _KINDS:
        for suffix, node in (("a", first), ("b", first), ("c", second)):
            name = f"{kind}-{suffix}"
            found.append(_pod(namespace, name, kind, node))
            if suffix != "a":
                found.append(_service(namespace, name))
    return found


def _pod(namespace: str, name: str, kind: Kind, node: str) -> dict[str, Any]:
    annotations = {NETWORK_TYPE: _KINDS[kind], IP_FAMILY: "DualStack"}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}, "annotations": annotations}
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _service(namespace: str, name: str) -> dict[str, Any]:
    ports = [{"name": p.lower(), "protocol": p, "port": PORT} for p in ("TCP", "UDP")]
    spec = {"selector": {"app": name}, "ipFamilyPolicy": "PreferDualStack", "ports": ports}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _wait_running(cluster: Cluster, namespace: str, count: int) -> None:
    deadline = time.monotonic() + PODS_SECONDS
    while True:
        phases = [p["status"].get("phase") for p in _items(cluster, "pods", namespace)]
        if phases.count("Running") == count:
            return
        if time.monotonic() > deadline:
            events = cluster.kubectl("get", "events", f"--namespace={namespace}", check=False)
            raise NotReady(f"the pods of the matrix do not run after {PODS_SECONDS:g} s:\n{events}")
        time.sleep(0.3)


def _items(cluster: Cluster, kind: str, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        cluster.kubectl("get", kind, f"--namespace={namespace}", "-o", "json")
    )["items"]
    return found


def _endpoints(cluster: Cluster, namespace: str) -> list[Endpoint]:
    topology = cluster.topology
    records = _sandboxes(cluster, namespace)
    found = [_pod_endpoint(p, records) for p in _items(cluster, "pods", namespace)]
    found += [
        Endpoint(
            name,
            Kind.NODE,
            name,
            str(topology.namespace_path(name)),
            tuple(i.ip for i in topology.node(name).addresses),
            _FABRIC_MTU,
        )
        for name in topology.node_names[:2]
    ]
    outside = topology.external
    found.append(
        Endpoint(
            "external",
            Kind.EXTERNAL,
            "",
            str(topology.namespace_path("external")),
            tuple(i.ip for i in outside.addresses),
            _FABRIC_MTU,
        )
    )
    return found


def _sandboxes(cluster: Cluster, namespace: str) -> dict[str, tuple[str, int]]:
    """Pod name to its network namespace, as the machine sees it, and its MTU: from the agents' records."""
    found = {}
    for name in cluster.topology.node_names:
        node = cluster.node(name)
        for path in node.path(STATE).glob("*.json"):
            record = json.loads(path.read_text())
            if record["namespace"] == namespace:
                inside = record["netns"].replace("/var/run/", "/run/")  # a link that would lead to our /run
                found[record["pod"]] = str(node.path(inside)), record["mtu"]
    return found


def _pod_endpoint(pod: dict[str, Any], records: dict[str, tuple[str, int]]) -> Endpoint:
    name = pod["metadata"]["name"]
    if name not in records:
        raise NotReady(f"no agent has a record of pod {name}: is the lab's network plugin ours?")
    netns, mtu = records[name]
    addresses = tuple(ip_address(a["ip"]) for a in pod["status"]["podIPs"])
    return Endpoint(name, Kind(name.split("-")[0]), pod["spec"]["nodeName"], netns, addresses, mtu)


def _services(cluster: Cluster, namespace: str, endpoints: list[Endpoint]) -> list[Service]:
    by_name = {e.name: e for e in endpoints}
    return [
        Service(_cluster_ips(s), by_name[s["metadata"]["name"]])
        for s in _items(cluster, "services", namespace)
    ]


def _cluster_ips(service: dict[str, Any]) -> tuple[IPAddress, ...]:
    return tuple(ip_address(a) for a in service["spec"]["clusterIPs"])
