"""What an operator does with kubectl, and what answers."""

from ipaddress import ip_address, ip_network

import pytest

from hybridnet.lab.cluster import Cluster
from tests.lab.workloads import (
    FAMILY,
    NETWORK,
    SUBNET,
    TYPE,
    addresses,
    apply,
    eventually,
    items,
    namespace,
    pods,
    running,
    workload,
)


def within(texts: list[str], *cidrs: str) -> bool:
    """Whether there is exactly one address in each of *cidrs*."""
    networks = [ip_network(c) for c in cidrs]
    return len(texts) == len(networks) and all(
        ip_address(t) in n for t, n in zip(texts, networks, strict=True)
    )


@pytest.mark.spec("A1", "A2", "A3", "E1", "E4", "E6")
def test_deployments_and_a_statefulset_get_addresses_of_the_networks_that_they_name(cluster: Cluster) -> None:
    with namespace(cluster, "workloads") as ns:
        apply(
            cluster,
            workload("Deployment", "over", 3, {NETWORK: "overlay", FAMILY: "DualStack"}),
            workload("Deployment", "under", 3, {TYPE: "underlay", FAMILY: "ipv4only"}),
            workload("StatefulSet", "db", 3, {SUBNET: "underlay-v4/underlay-v6", FAMILY: "DualStack"}),
            namespace=ns,
        )
        eventually("nine pods run", lambda: running(cluster, ns, 9))
        found = addresses(cluster, ns)
        assert all(within(found[n], "100.64.0.0/16", "fd64::/112") for n in found if n.startswith("over"))
        assert all(within(found[n], "172.31.1.0/24") for n in found if n.startswith("under"))
        assert all(within(found[f"db-{i}"], "172.31.1.0/24", "fd31:1::/64") for i in range(3))
        everything = [a for ips in found.values() for a in ips]
        assert len(everything) == len(set(everything)) == 15
        records = items(cluster, "ipinstances", ns)
        assert {r["spec"]["address"]["ip"].split("/")[0] for r in records} == set(everything)
        by_pod = {p["metadata"]["name"]: p["spec"]["nodeName"] for p in pods(cluster, ns)}
        for record in records:
            assert record["spec"]["binding"]["nodeName"] == by_pod[record["spec"]["binding"]["podName"]]
    eventually("all addresses are given back", lambda: not items(cluster, "ipinstances", "workloads"))


def test_kubectl_shows_every_kind_wide_and_by_its_short_name(cluster: Cluster) -> None:
    wide = cluster.kubectl("get", "networks,subnets,ipinstances,nodeinfo", "-A", "-o", "wide")
    for word in ("overlay-v4", "underlay-v6", "node3", "172.31.0.12", "NETID", "VTEPMAC", "V4AVAILABLE"):
        assert word in wide
    for short, word in (
        ("hnet", "overlay"),
        ("hsub", "underlay-v4"),
        ("hni", "node1"),
        ("hybridnet", "node2"),
    ):
        assert word in cluster.kubectl("get", short, "-A")


def test_network_status_tells_nodes_subnets_and_counts(cluster: Cluster) -> None:
    def status() -> bool:
        found = {n["metadata"]["name"]: n.get("status", {}) for n in items(cluster, "networks")}
        overlay = found["overlay"]
        return (
            overlay.get("nodeList") == list(cluster.topology.node_names)
            and overlay.get("subnetList") == ["overlay-v4", "overlay-v6"]
            and overlay["statistics"]["total"] == 65534
        )

    eventually("the status is complete", status, 20)
    described = cluster.kubectl("describe", "network", "overlay")
    assert "Ready" in described


def test_explain_tells_what_a_field_means(cluster: Cluster) -> None:
    assert "masquerade" in cluster.kubectl("explain", "subnet.spec.config.autoNatOutgoing").lower() or (
        "node's address" in cluster.kubectl("explain", "subnet.spec.config.autoNatOutgoing")
    )
    assert "VLAN" in cluster.kubectl("explain", "network.spec.netID")
    assert "gateway" in cluster.kubectl("explain", "subnet.spec.range.gateway").lower()


def test_a_manifest_applies_client_side_and_server_side_and_goes_again(cluster: Cluster) -> None:
    manifest = b"""
apiVersion: networking.alibaba.com/v1
kind: Network
metadata: {name: rack9}
spec: {nodeSelector: {rack: nine}, netID: 0, type: Underlay, mode: VLAN}
---
apiVersion: networking.alibaba.com/v1
kind: Subnet
metadata: {name: rack9-v4}
spec: {network: rack9, netID: 0, range: {version: "4", cidr: 10.99.0.0/24, gateway: 10.99.0.1}}
"""
    try:
        assert "created" in cluster.kubectl("apply", "-f", "-", stdin=manifest)
        assert "unchanged" in cluster.kubectl("apply", "-f", "-", stdin=manifest)
        assert "serverside-applied" in cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest
        )
    finally:
        assert "deleted" in cluster.kubectl("delete", "-f", "-", "--timeout=30s", stdin=manifest)


def test_a_completed_pod_gives_its_address_back_at_once(cluster: Cluster) -> None:
    with namespace(cluster, "jobs") as ns:
        job = workload("Deployment", "once", 1, {})["spec"]["template"]
        job["spec"]["restartPolicy"] = "Never"
        job["spec"]["containers"][0]["command"] = ["true"]
        apply(cluster, {"apiVersion": "v1", "kind": "Pod", **job, "metadata": {"name": "once"}}, namespace=ns)
        eventually("the pod completes", lambda: pods(cluster, ns)[0]["status"].get("phase") == "Succeeded")
        eventually("its addresses are free", lambda: not items(cluster, "ipinstances", ns), 20)
