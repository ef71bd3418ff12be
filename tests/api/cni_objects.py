"""API objects about one node: networks, the Node, and IPInstances as the manager writes them."""

import hashlib
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

from hybridnet.model import labels
from hybridnet.model.address import IPAddress, instance_name
from hybridnet.model.resource import IPINSTANCES, NETWORKS, NODEINFOS, NODES, SUBNETS, Resource
from tests.api.raw import RawApi

Manifest = dict[str, Any]
RBAC = Path(__file__).parents[2] / "deploy" / "rbac" / "agent.yaml"

OVERLAY, UNDERLAY, CLOSED, FAR = "cnit-overlay", "cnit-underlay", "cnit-closed", "cnit-far"
SUBNET_RANGES = {
    OVERLAY: ("100.64.0.0/16", "fd64::/112"),
    CLOSED: ("100.65.0.0/16", "fd65::/112"),
    UNDERLAY: ("172.31.1.0/24", "fd31:1::/64"),
    FAR: ("172.31.2.0/24", "fd31:2::/64"),
}
"""Subnets by the first part of their names; ``closed`` belongs to the overlay but may not leave the cluster,
``far`` is an underlay of other nodes."""
GATEWAY = {UNDERLAY: {4: "172.31.1.1", 6: "fd31:1::1"}, FAR: {4: "172.31.2.1", 6: "fd31:2::1"}}
NETWORK = {CLOSED: OVERLAY}
"""Network of a subnet, if it has not its name."""
VNI = 4
STACK = {(4,): "IPv4Only", (6,): "IPv6Only", (4, 6): "DualStack"}
FIRST_OFFSET = 10
_API_VERSION = "networking.alibaba.com/v1"


def digest(text: str) -> str:
    """64 hex digits, as long as a runtime's container id."""
    return hashlib.sha256(text.encode()).hexdigest()


def uid_of(pod: str) -> str:
    h = digest(pod)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


def mac_of(pod: str) -> str:
    return "02:12:34:" + ":".join(digest(pod)[i : i + 2] for i in (0, 2, 4))


class Objects:
    """What the manager and the administrator would have written; gone with :meth:`close`."""

    def __init__(self, kubeconfig: Path, node: str, addresses: Sequence[str]) -> None:
        self.api = RawApi(kubeconfig)
        self.node = node
        self.namespace = node
        self._made: list[str] = []
        self._offset = FIRST_OFFSET
        self._given: list[IPAddress] = []
        for manifest in yaml.safe_load_all(RBAC.read_text()):
            self._create_foreign(manifest)
        self.create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.create(NODES.path(), {"metadata": {"name": node, "labels": {"rack": node}}})
        self.set_node_addresses(addresses)
        self._create_networks()

    def close(self) -> None:
        """Delete everything, newest first; a finalizer that nobody works on goes before."""
        for path in reversed(self._made):
            self.delete(path)
        self.delete(NODEINFOS.path("", self.node))
        self.api.close()

    def create(self, path: str, manifest: Manifest) -> Manifest:
        """Create an object that goes with :meth:`close`; as stored."""
        status, stored = self.api.send("POST", path, manifest)
        assert status == 201, stored
        self._made.append(f"{path}/{manifest['metadata']['name']}")
        return stored

    def patch(self, path: str, body: Any) -> Manifest:
        """Merge patch."""
        status, stored = self.api.send("PATCH", path, body, "application/merge-patch+json")
        assert status == 200, stored
        return stored

    def get(self, path: str) -> Manifest:
        """An object; empty when there is none."""
        status, found = self.api.send("GET", path)
        return found if status == 200 else {}

    def delete(self, path: str) -> None:
        """Delete an object if it is there."""
        patch = {"metadata": {"finalizers": None}}
        self.api.send("PATCH", path, patch, "application/merge-patch+json")
        self.api.send("DELETE", path)

    def set_node_addresses(self, addresses: Sequence[str]) -> None:
        """The Node's internal addresses, as the kubelet reports them."""
        entries = [{"type": "InternalIP", "address": a} for a in addresses]
        self.patch(f"{NODES.path('', self.node)}/status", {"status": {"addresses": entries}})

    def node_info(self) -> Manifest:
        return self.get(NODEINFOS.path("", self.node))

    def instance(self, address: IPAddress) -> Manifest:
        return self.get(IPINSTANCES.path(self.namespace, instance_name(address)))

    def give(
        self, pod: str, families: Sequence[int] = (4,), network: str = OVERLAY, only: Sequence[int] = ()
    ) -> list[IPAddress]:
        """Give *pod* an address of each family (*only* some of them for now); the addresses."""
        self._offset += 1
        given = []
        for family in only or families:
            cidr = ip_network(next(c for c in SUBNET_RANGES[network] if ip_network(c).version == family))
            address = cidr[self._offset]
            stack = STACK[tuple(families)]
            manifest = self._instance(pod, network, address, cidr.prefixlen, stack)
            self.create(IPINSTANCES.path(self.namespace), manifest)
            given.append(address)
        self._given += given
        return given

    def take(self, address: IPAddress) -> None:
        """Release an address."""
        self.delete(IPINSTANCES.path(self.namespace, instance_name(address)))

    def take_all(self) -> None:
        """Release every address."""
        for address in self._given:
            self.take(address)
        self._given.clear()

    def _instance(self, pod: str, subnet: str, address: IPAddress, length: int, stack: str) -> Manifest:
        network = NETWORK.get(subnet, subnet)
        named = {
            labels.VERSION: labels.VERSION_VALUE,
            labels.IP_FAMILY: stack,
            labels.SUBNET: f"{subnet}-{address.version}",
            labels.NETWORK: network,
            labels.NODE: labels.label_value(self.node),
            labels.POD: labels.label_value(pod),
            labels.POD_UID: uid_of(pod),
        }
        return {
            "apiVersion": _API_VERSION,
            "kind": "IPInstance",
            "metadata": {
                "name": instance_name(address),
                "labels": named,
                "finalizers": [labels.FINALIZER],
            },
            "spec": {
                "network": network,
                "subnet": f"{subnet}-{address.version}",
                "address": {
                    "version": str(address.version),
                    "ip": f"{address}/{length}",
                    "mac": mac_of(pod),
                    "netID": VNI if network == OVERLAY else 0,
                },
                "binding": {
                    "referredObject": {"kind": "Pod", "name": pod, "uid": uid_of(pod)},
                    "nodeName": self.node,
                    "podUID": uid_of(pod),
                    "podName": pod,
                },
            },
        }

    def _create_networks(self) -> None:
        self._object(NETWORKS, OVERLAY, {"type": "Overlay", "netID": VNI})
        for name, rack in ((UNDERLAY, self.node), (FAR, "elsewhere")):
            spec = {"type": "Underlay", "netID": 0, "nodeSelector": {"rack": rack}}
            self._object(NETWORKS, name, spec)
        for prefix, cidrs in SUBNET_RANGES.items():
            for cidr in cidrs:
                self._create_subnet(prefix, cidr)

    def _create_subnet(self, prefix: str, cidr: str) -> None:
        family = ip_network(cidr).version
        addresses = {"version": str(family), "cidr": cidr}
        spec: Manifest = {"network": NETWORK.get(prefix, prefix), "range": addresses}
        if prefix in GATEWAY:
            addresses["gateway"] = GATEWAY[prefix][family]
        if prefix == CLOSED:
            spec["config"] = {"autoNatOutgoing": False}
        self._object(SUBNETS, f"{prefix}-{family}", spec)

    def _object(self, resource: Resource[Any], name: str, spec: Manifest) -> None:
        manifest = {"apiVersion": _API_VERSION, "kind": resource.kind, "metadata": {"name": name}}
        self.create(resource.path(), {**manifest, "spec": spec})

    def _create_foreign(self, manifest: Manifest) -> None:
        """Permissions; several worlds share them."""
        kinds = {
            "ServiceAccount": "/api/v1/namespaces/kube-system/serviceaccounts",
            "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        }
        status, answer = self.api.send("POST", kinds[manifest["kind"]], manifest)
        assert status in (201, 409), answer
