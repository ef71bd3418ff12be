"""What a pod asks for, and which network, subnets and families that means on its node.

The request comes from the first level that says anything at all: the pod's annotations and labels, then its
namespace's, then the defaults of the cluster. Levels are never merged (parity): a pod that sets only its
family does not get its namespace's network. On one object an annotation beats the label of the same key.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from hybridnet.ipam.errors import (
    InvalidRequest,
    NodeNotInNetwork,
    NoNetwork,
    UnknownNetwork,
    UnknownNode,
    UnknownSubnet,
)
from hybridnet.ipam.validity import Judgement
from hybridnet.model import labels
from hybridnet.model.address import Family
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import Network, NetworkMode, NetworkType


class IPFamily(StrEnum):
    """Which families a pod gets."""

    V4_ONLY = "IPv4Only"
    V6_ONLY = "IPv6Only"
    DUAL_STACK = "DualStack"

    @property
    def families(self) -> tuple[Family, ...]:
        """The families, IPv4 first."""
        return _FAMILIES[self]


_FAMILIES = {
    IPFamily.V4_ONLY: (Family.V4,),
    IPFamily.V6_ONLY: (Family.V6,),
    IPFamily.DUAL_STACK: (Family.V4, Family.V6),
}
_FAMILY_WORDS = {
    "ipv4": IPFamily.V4_ONLY,
    "ipv4only": IPFamily.V4_ONLY,
    "ipv6": IPFamily.V6_ONLY,
    "ipv6only": IPFamily.V6_ONLY,
    "dualstack": IPFamily.DUAL_STACK,
}
_TYPE_WORDS = {kind.lower(): kind for kind in NetworkType}


class Defaults(Struct, frozen=True):
    """What a pod gets that asks for nothing."""

    network_type: NetworkType = NetworkType.OVERLAY
    ip_family: IPFamily = IPFamily.DUAL_STACK


class Request(Struct, frozen=True):
    """What one level asks for; empty fields are left to the defaults."""

    network: str = ""
    subnets: tuple[str, ...] = ()
    type: NetworkType | None = None
    family: IPFamily | None = None


class Choice(Struct, frozen=True):
    """What the pod gets: one network, and per family a named subnet or None for any."""

    network: str
    family: IPFamily
    subnets: tuple[str | None, ...]

    def wants(self) -> tuple[tuple[Family, str | None], ...]:
        """Each family with its subnet."""
        return tuple(zip(self.family.families, self.subnets, strict=True))


def parse_family(text: str) -> IPFamily:
    """An ip-family in any of its spellings. InvalidRequest when it is none."""
    family = _FAMILY_WORDS.get(text.lower())
    if family is None:
        raise InvalidRequest(f'{labels.IP_FAMILY}: "{text}" is none of IPv4Only, IPv6Only, DualStack')
    return family


def parse_type(text: str) -> NetworkType:
    """A network-type in any case. InvalidRequest when it is none."""
    kind = _TYPE_WORDS.get(text.lower())
    if kind is None:
        raise InvalidRequest(f'{labels.NETWORK_TYPE}: "{text}" is none of Underlay, Overlay, GlobalBGP')
    return kind


def read_request(pod: ObjectMeta, namespace: ObjectMeta | None) -> Request:
    """The request of the first level that makes one. InvalidRequest when it is not understood."""
    for level in (pod, namespace):
        if level is not None and (request := _read_level(level)) != Request():
            return request
    return Request()


def choose(
    request: Request,
    defaults: Defaults,
    judgement: Judgement,
    node: str,
    nodes: Mapping[str, Mapping[str, str]],
) -> Choice:
    """Decide on network, subnets and families for a pod on *node*. *nodes* maps names to labels.

    SelectionError says what does not fit and what to change.
    """
    family = request.family or defaults.ip_family
    named = _subnet_network(request, judgement)
    if node not in nodes:
        raise UnknownNode(f"node {node} is not known; waiting for its Node object")
    node_labels = nodes[node]
    if named:
        network = _named_network(named, request, judgement)
        if not serves(network, node_labels, judgement):
            raise NodeNotInNetwork(_unserved(network, node))
    else:
        network = _network_for(request.type or defaults.network_type, node, node_labels, judgement)
    return Choice(network.name, family, _subnets_by_family(request, family, judgement))


def serves(network: Network, node_labels: Mapping[str, str], judgement: Judgement) -> bool:
    """Whether a node with these labels belongs to *network*. GlobalBGP borrows the nodes of BGP networks."""
    if network.type is NetworkType.GLOBAL_BGP:
        return any(
            other.mode is NetworkMode.BGP and other.selects(dict(node_labels))
            for other in judgement.networks.values()
        )
    return network.selects(dict(node_labels))


def _read_level(level: ObjectMeta) -> Request:
    def get(key: str) -> str:
        return level.annotations.get(key) or level.labels.get(key, "")

    kind, family = get(labels.NETWORK_TYPE), level.annotations.get(labels.IP_FAMILY, "")
    subnets = get(labels.SPECIFIED_SUBNET)
    return Request(
        network=get(labels.SPECIFIED_NETWORK),
        subnets=tuple(subnets.split("/")) if subnets else (),
        type=parse_type(kind) if kind else None,
        family=parse_family(family) if family else None,
    )


def _subnet_network(request: Request, judgement: Judgement) -> str:
    """The network named directly or through subnets, "" when none is."""
    if len(request.subnets) > 2:
        raise InvalidRequest(
            f"{labels.SPECIFIED_SUBNET} names {len(request.subnets)} subnets; at most two: v4/v6"
        )
    network = request.network
    for name in request.subnets:
        subnet = judgement.subnets.get(name)
        if subnet is None:
            raise UnknownSubnet(_unusable_subnet(name, judgement))
        if network and subnet.spec.network != network:
            raise InvalidRequest(
                f"subnet {name} belongs to network {subnet.spec.network}, not to {network}; "
                f"correct {labels.SPECIFIED_SUBNET} or {labels.SPECIFIED_NETWORK}"
            )
        network = subnet.spec.network
    return network


def _named_network(name: str, request: Request, judgement: Judgement) -> Network:
    network = judgement.networks.get(name)
    if network is None:
        problem = judgement.network_problems.get(name)
        if problem:
            raise UnknownNetwork(f"network {name} cannot be used: {problem.message}")
        known = ", ".join(sorted(judgement.networks)) or "none"
        raise UnknownNetwork(
            f"network {name} does not exist (there are: {known}); create it, or correct "
            f"{labels.SPECIFIED_NETWORK} of the pod or its namespace"
        )
    if request.type and request.type is not network.type:
        raise InvalidRequest(
            f"network {name} is of type {network.type}, but {labels.NETWORK_TYPE} asks for {request.type}"
        )
    return network


def _network_for(
    kind: NetworkType, node: str, node_labels: Mapping[str, str], judgement: Judgement
) -> Network:
    of_kind = [network for _, network in sorted(judgement.networks.items()) if network.type is kind]
    for network in of_kind:
        if serves(network, node_labels, judgement):
            return network
    if not of_kind:
        raise NoNetwork(f"there is no {kind} network; create one, or set {labels.NETWORK_TYPE} on the pod")
    names = ", ".join(network.name for network in of_kind)
    raise NoNetwork(
        f"node {node} is in no {kind} network ({names}); label the node as their nodeSelector asks, "
        f"or set {labels.NETWORK_TYPE} on the pod"
    )


def _unserved(network: Network, node: str) -> str:
    if network.type is NetworkType.GLOBAL_BGP:
        return f"node {node} is in no BGP network, so network {network.name} does not serve it"
    selector = ",".join(f"{key}={value}" for key, value in sorted(network.spec.node_selector.items()))
    return (
        f"node {node} is not in network {network.name}, whose nodeSelector is {selector or 'empty'}; "
        "label the node, or give the pod this nodeSelector"
    )


def _unusable_subnet(name: str, judgement: Judgement) -> str:
    problem = judgement.subnet_problems.get(name)
    if problem:
        return f"subnet {name} cannot be used: {problem.message}"
    return f"subnet {name} does not exist; create it, or correct {labels.SPECIFIED_SUBNET}"


def _subnets_by_family(request: Request, family: IPFamily, judgement: Judgement) -> tuple[str | None, ...]:
    families, names = family.families, request.subnets
    if not names:
        return (None,) * len(families)
    if len(names) != len(families):
        raise InvalidRequest(
            f"{labels.SPECIFIED_SUBNET} names {len(names)} subnet(s), but ip-family {family} needs "
            f"{len(families)}" + (": v4subnet/v6subnet" if len(families) == 2 else "")
        )
    for name, wanted in zip(names, families, strict=True):
        actual = judgement.ranges[name].family
        if actual is not wanted:
            raise InvalidRequest(
                f"subnet {name} is IPv{actual}, where ip-family {family} needs an IPv{wanted} one"
                + (" (the order is v4subnet/v6subnet)" if len(families) == 2 else "")
            )
    return names
