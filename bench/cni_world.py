"""The world of ``cni_add``: API objects as the manager writes them, the agent, both plugins' configuration."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import wires
from cni_calls import Plugin
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.lab import plugin, processes, system
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model import crd, labels
from hybridnet.model.address import Family, instance_name
from hybridnet.model.instance import Address, Binding, IPInstance, IPInstanceSpec, ReferredObject
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import (
    GROUP,
    IPBLOCKS,
    IPINSTANCES,
    NETWORKS,
    NODEINFOS,
    NODES,
    SUBNETS,
    Resource,
)

NODE = "node1"
RANGES = {
    "overlay": {Family.V4: "100.64.0.0/16", Family.V6: "fd64::/112"},
    "underlay": {Family.V4: "172.31.1.0/24", Family.V6: "fd31:1::/64"},
}
FAMILY_LABEL = {1: "IPv4Only", 2: "DualStack"}
FIRST_ADDRESS = 10
AGENT_TIMEOUT = 60.0
SERVED_TIMEOUT = 60.0


def digest(text: str) -> str:
    """64 hex digits, as long as a runtime's container id."""
    return hashlib.sha256(text.encode()).hexdigest()


def uid_of(pod: str) -> str:
    """A pod's UID."""
    h = digest(pod)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


def pod_names(network: str, families: Sequence[Family], count: int) -> list[str]:
    """The pods that have addresses of *families* in *network*."""
    return [f"{network}-{len(families)}-{number}" for number in range(count)]


async def prepare(plane: ControlPlane, pods: int) -> None:
    """Write the kinds, the node, the networks, and *pods* pods' addresses for each network and stack."""
    for manifest in crd.manifests():
        plane.api.create(manifest)
    processes.wait_for("the kinds", lambda: _is_served(plane), timeout=SERVED_TIMEOUT)
    async with Client(load_config(plane.kubeconfig)) as client:
        await _apply(client, NODES, NODE)
        inner = [{"type": "InternalIP", "address": a.split("/")[0]} for a in wires.addresses_of(0)]
        await client.patch(NODES, NODE, {"status": {"addresses": inner}}, kind="merge", subresource="status")
        for network, ranges in RANGES.items():
            await _apply(client, NETWORKS, network, _network(network))
            for family, cidr in ranges.items():
                spec = {"network": network, "range": {"version": str(int(family)), "cidr": cidr}}
                await _apply(client, SUBNETS, f"{network}-v{int(family)}", spec)
            for instance in _instances(network, pods):
                await client.create(IPINSTANCES, instance)


def _is_served(plane: ControlPlane) -> bool:
    body = plane.api.request("GET", f"/apis/{GROUP}/v1")[1]
    kinds: tuple[Resource[Any], ...] = (NETWORKS, SUBNETS, NODEINFOS, IPBLOCKS, IPINSTANCES)
    return all(f'"{kind.plural}"'.encode() in body for kind in kinds)


@contextlib.contextmanager
def agent(plane: ControlPlane, folder: Path) -> Iterator[None]:
    """The agent of the node, serving. NotReady, ProcessDied."""
    socket = folder / "agent.sock"
    command = [
        *system.program("agent"),
        f"--node-name={NODE}",
        f"--kubeconfig={plane.kubeconfig}",
        f"--socket={socket}",
        "--nic=eth0",
        f"--state-dir={folder / 'sandboxes'}",
    ]
    process = processes.start("agent", command, folder / "agent.log", pdeathsig=True)
    try:
        processes.wait_for(
            "the agent",
            lambda: b"serving" in (folder / "agent.log").read_bytes(),
            timeout=AGENT_TIMEOUT,
            processes=[process],
        )
        yield
    finally:
        process.stop()


def ours(folder: Path) -> Plugin:
    """Our executable, pointed at the agent of this run."""
    configuration = {"type": "hybridnet", "server_socket": str(folder / "agent.sock")}
    return Plugin(plugin.cni_executable(), "hybridnet", configuration)


def bridge(folder: Path, families: Sequence[Family]) -> Plugin:
    """Debian's bridge with host-local, a range for each of *families*; its state in *folder*."""
    subnets = {Family.V4: ("10.244.1.0/24", "0.0.0.0/0"), Family.V6: ("fd44:1::/64", "::/0")}
    configuration = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(folder / f"host-local-{len(families)}"),
            "ranges": [[{"subnet": subnets[family][0]}] for family in families],
            "routes": [{"dst": subnets[family][1]} for family in families],
        },
    }
    return Plugin(plugin.STOCK_PLUGINS / "bridge", f"bench{len(families)}", configuration)


def _network(name: str) -> dict[str, object]:
    if name == "overlay":
        return {"type": "Overlay", "netID": 4}
    return {"type": "Underlay", "netID": 0, "nodeSelector": {"bench": "node"}}


async def _apply(
    client: Client, resource: Resource[Any], name: str, spec: Mapping[str, object] | None = None
) -> None:
    body: dict[str, object] = {"metadata": {"name": name, "labels": {"bench": "node"}}}
    if spec is not None:
        body["spec"] = spec
    await client.patch(resource, name, body, kind="apply", field_manager="bench")


def _instances(network: str, pods: int) -> Iterator[IPInstance]:
    """IPv4 pods have the first addresses, dual stack pods the next."""
    stacks = ((Family.V4,), (Family.V4, Family.V6))
    for stack, families in enumerate(stacks):
        for number, pod in enumerate(pod_names(network, families, pods)):
            for family in families:
                offset = FIRST_ADDRESS + stack * pods + number
                yield _instance(network, family, pod, offset, FAMILY_LABEL[len(families)])


def _instance(network: str, family: Family, pod: str, offset: int, stack: str) -> IPInstance:
    cidr = ip_network(RANGES[network][family])
    address = cidr[offset]
    subnet = f"{network}-v{int(family)}"
    mac = "02:12:34:" + ":".join(digest(pod)[i : i + 2] for i in (0, 2, 4))
    named = {
        labels.SUBNET: subnet,
        labels.NETWORK: network,
        labels.NODE: NODE,
        labels.POD: pod,
        labels.POD_UID: uid_of(pod),
    }
    return IPInstance(
        metadata=ObjectMeta(
            name=instance_name(address),
            namespace="default",
            labels={labels.VERSION: labels.VERSION_VALUE, labels.IP_FAMILY: stack, **named},
            finalizers=(labels.FINALIZER,),
        ),
        spec=IPInstanceSpec(
            network=network,
            subnet=subnet,
            address=Address(
                version=str(int(family)),
                ip=f"{address}/{cidr.prefixlen}",
                mac=mac,
                net_id=4 if network == "overlay" else 0,
            ),
            binding=Binding(
                referred_object=ReferredObject(kind="Pod", name=pod, uid=uid_of(pod)),
                node_name=NODE,
                pod_uid=uid_of(pod),
                pod_name=pod,
            ),
        ),
    )
