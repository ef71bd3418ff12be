"""What an operator sees: kubectl get, describe, explain and apply on our kinds, with a real kubectl."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hybridnet.lab.controlplane import ControlPlane
from hybridnet.lab.errors import CommandFailed
from hybridnet.model import crd

API = "networking.alibaba.com/v1"
NETWORK = "kubectl-underlay"
SUBNET = "kubectl-subnet"
INSTANCE = "10-201-0-7"
NODE = "kubectl-node"
BLOCK = "10-201-0-0-24"

OBJECTS: list[dict[str, Any]] = [
    {
        "apiVersion": API,
        "kind": "Network",
        "metadata": {"name": NETWORK},
        "spec": {"netID": 201, "nodeSelector": {"network": "rack"}},
    },
    {
        "apiVersion": API,
        "kind": "Subnet",
        "metadata": {"name": SUBNET},
        "spec": {
            "network": NETWORK,
            "range": {
                "version": "4",
                "cidr": "10.201.0.0/24",
                "start": "10.201.0.5",
                "end": "10.201.0.9",
                "gateway": "10.201.0.1",
            },
        },
    },
    {
        "apiVersion": API,
        "kind": "IPInstance",
        "metadata": {"name": INSTANCE, "namespace": "default"},
        "spec": {
            "network": NETWORK,
            "subnet": SUBNET,
            "address": {
                "version": "4",
                "ip": "10.201.0.7/24",
                "gateway": "10.201.0.1",
                "netID": 201,
                "mac": "00:16:ea:00:00:07",
            },
            "binding": {
                "referredObject": {"kind": "Pod", "name": "web", "uid": "1"},
                "nodeName": NODE,
                "podName": "web",
            },
        },
    },
    {
        "apiVersion": API,
        "kind": "NodeInfo",
        "metadata": {"name": NODE},
        "spec": {"vtepInfo": {"ip": "10.201.1.1", "mac": "00:16:ea:00:01:01", "localIPs": ["10.201.1.1"]}},
    },
    {
        "apiVersion": API,
        "kind": "IPBlock",
        "metadata": {"name": BLOCK},
        "spec": {"cidr": "10.201.0.0/24", "claims": {"7": f"1 {NODE}"}},
    },
]
READY = {"type": "Ready", "status": "True", "reason": "Usable", "message": "addresses can be given"}
STATUS = {
    f"network/{NETWORK}": {
        "lastAllocatedSubnet": SUBNET,
        "lastAllocatedIPv6Subnet": "",
        "statistics": {"total": 5, "used": 1, "available": 4},
        "ipv6Statistics": {"total": 0, "used": 0, "available": 0},
        "conditions": [READY],
    },
    f"subnet/{SUBNET}": {"total": 5, "used": 1, "available": 4, "conditions": [READY]},
}


def manifests(objects: list[dict[str, Any]]) -> bytes:
    return yaml.safe_dump_all(objects).encode()


@pytest.fixture(scope="module")
def cluster(api_server: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster with one object of each kind."""
    api_server.kubectl("apply", "--server-side", "--filename=-", stdin=manifests(OBJECTS))
    for name, status in STATUS.items():
        patch = json.dumps({"status": status})
        api_server.kubectl("patch", name, "--subresource=status", "--type=merge", f"--patch={patch}")
    yield api_server
    api_server.kubectl("delete", "--filename=-", stdin=manifests(OBJECTS))


def table(text: str) -> dict[str, str]:
    """Header -> value of the only row, cut where the header's words begin."""
    head, row = text.splitlines()
    starts = [i for i, letter in enumerate(head) if letter != " " and (i == 0 or head[i - 1] == " ")]
    ends = [*starts[1:], None]
    return {head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def get(cluster: ControlPlane, *arguments: str) -> dict[str, str]:
    return table(cluster.kubectl("get", *arguments))


def test_a_network_prints_the_columns_of_the_original_in_order(cluster: ControlPlane) -> None:
    assert get(cluster, "network", NETWORK) == {
        "NAME": NETWORK,
        "NETID": "201",
        "TYPE": "",
        "MODE": "",
        "V4TOTAL": "5",
        "V4USED": "1",
        "V4AVAILABLE": "4",
        "LASTALLOCATEDV4SUBNET": SUBNET,
        "V6TOTAL": "0",
        "V6USED": "0",
        "V6AVAILABLE": "0",
        "LASTALLOCATEDV6SUBNET": "",
    }


def test_a_subnet_prints_the_columns_of_the_original_in_order(cluster: ControlPlane) -> None:
    printed = get(cluster, "subnet", SUBNET)
    assert list(printed.items()) == [
        ("NAME", SUBNET),
        ("VERSION", "4"),
        ("CIDR", "10.201.0.0/24"),
        ("START", "10.201.0.5"),
        ("END", "10.201.0.9"),
        ("GATEWAY", "10.201.0.1"),
        ("TOTAL", "5"),
        ("USED", "1"),
        ("AVAILABLE", "4"),
        ("NETID", ""),
        ("NETWORK", NETWORK),
    ]


def test_an_ip_instance_prints_the_columns_of_the_original_in_order(cluster: ControlPlane) -> None:
    printed = get(cluster, "ipinstance", INSTANCE)
    assert list(printed.items()) == [
        ("NAME", INSTANCE),
        ("IP", "10.201.0.7/24"),
        ("GATEWAY", "10.201.0.1"),
        ("PODNAME", "web"),
        ("NODE", NODE),
        ("SUBNET", SUBNET),
        ("NETWORK", NETWORK),
    ]


def test_a_node_info_prints_the_columns_of_the_original_in_order(cluster: ControlPlane) -> None:
    printed = get(cluster, "nodeinfo", NODE)
    assert list(printed.items()) == [
        ("NAME", NODE),
        ("VTEPIP", "10.201.1.1"),
        ("VTEPMAC", "00:16:ea:00:01:01"),
        ("VTEPLOCALIPS", '["10.201.1.1"]'),
    ]


@pytest.mark.parametrize("name", [f"network/{NETWORK}", f"subnet/{SUBNET}"])
def test_the_wide_output_tells_whether_it_can_be_used(cluster: ControlPlane, name: str) -> None:
    printed = get(cluster, name, "--output=wide")
    assert (printed["READY"], printed["REASON"]) == ("True", "Usable")
    assert printed["AGE"].endswith("s")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("hnet", NETWORK),
        ("networks", NETWORK),
        ("hsub", SUBNET),
        ("hip", INSTANCE),
        ("hni", NODE),
        ("nodeinfoes", NODE),
        ("hblk", BLOCK),
        ("ipblocks", BLOCK),
    ],
)
def test_every_kind_answers_to_its_short_name_and_plural(cluster: ControlPlane, word: str, name: str) -> None:
    assert cluster.kubectl("get", word, name, "--output=name").strip().endswith(f"/{name}")


def test_one_word_gets_all_kinds(cluster: ControlPlane) -> None:
    listed = cluster.kubectl("get", crd.CATEGORY, "--all-namespaces", "--output=name").split()
    kinds = {name.split(".")[0] for name in listed}
    assert kinds == {"network", "subnet", "ipinstance", "nodeinfo", "ipblock"}


def test_describe_shows_the_condition(cluster: ControlPlane) -> None:
    described = cluster.kubectl("describe", "hnet", NETWORK)
    for text in ("Usable", "addresses can be given", "Node Selector"):
        assert text in described


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("network.spec.netID", "VXLAN network identifier"),
        ("network.spec.config.bgpPeers.password", "RFC 2385"),
        ("subnet.spec.range.reservedIPs", "assignable by an address pool"),
        ("ipinstance.spec.binding.nodeName", "empty when reserved"),
        ("nodeinfo.spec.vtepInfo", "VXLAN tunnel endpoint"),
        ("ipblock.spec.claims", "Offset within the block"),
        ("subnet.status.conditions.reason", "CamelCase"),
    ],
)
def test_explain_tells_what_a_field_means(cluster: ControlPlane, path: str, text: str) -> None:
    assert text in cluster.kubectl("explain", path)


def test_applying_again_changes_nothing(cluster: ControlPlane) -> None:
    def versions() -> str:
        return cluster.kubectl("get", "hnet,hsub", "--output=jsonpath={.items[*].metadata.resourceVersion}")

    before = versions()
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=manifests(OBJECTS))
    assert versions() == before


def test_server_side_apply_owns_single_fields(cluster: ControlPlane) -> None:
    added = {**OBJECTS[0], "spec": {"nodeSelector": {"zone": "a"}}}
    apply = ("apply", "--server-side", "--field-manager=second", "--filename=-")
    cluster.kubectl(*apply, stdin=manifests([added]))
    selector = ("get", "network", NETWORK, "--output=jsonpath={.spec.nodeSelector}")
    assert json.loads(cluster.kubectl(*selector)) == {"network": "rack", "zone": "a"}
    cluster.kubectl(*apply, stdin=manifests([{**OBJECTS[0], "spec": {"nodeSelector": {}}}]))
    assert json.loads(cluster.kubectl(*selector)) == {"network": "rack"}


def test_client_side_apply_edits_and_deletes(cluster: ControlPlane) -> None:
    network = {**OBJECTS[0], "metadata": {"name": "kubectl-client-side"}}
    for zone in ("a", "b"):
        edited = {**network, "spec": {"netID": 1, "nodeSelector": {"zone": zone}}}
        cluster.kubectl("apply", "--filename=-", stdin=manifests([edited]))
    path = ("network", "kubectl-client-side")
    assert cluster.kubectl("get", *path, "--output=jsonpath={.spec.nodeSelector.zone}") == "b"
    cluster.kubectl("delete", *path)
    assert cluster.kubectl("get", *path, "--ignore-not-found") == ""


def test_a_refusal_names_field_value_and_next_step(cluster: ControlPlane) -> None:
    broken = {
        **OBJECTS[1],
        "metadata": {"name": "kubectl-broken"},
        "spec": {"network": NETWORK, "range": {"version": "4", "cidr": "10.201.0.3/24"}},
    }
    with pytest.raises(CommandFailed) as refusal:
        cluster.kubectl("apply", "--server-side", "--filename=-", stdin=manifests([broken]))
    assert "spec.range.cidr" in str(refusal.value)
    assert "10.201.0.3/24 has host bits set: write 10.201.0.0/24" in str(refusal.value)


def test_a_misspelt_field_is_pointed_out(cluster: ControlPlane) -> None:
    misspelt = {**OBJECTS[0], "metadata": {"name": "kubectl-misspelt"}}
    misspelt["spec"] = {"netId": 1, "nodeSelector": {"zone": "a"}}
    with pytest.raises(CommandFailed, match="netId"):
        cluster.kubectl("apply", "--filename=-", stdin=manifests([misspelt]))
