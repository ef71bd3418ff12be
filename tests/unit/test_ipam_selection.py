"""What a pod asks for, level by level, and what it gets on its node."""

import pytest

from hybridnet.ipam.errors import (
    InvalidRequest,
    NodeNotInNetwork,
    NoNetwork,
    SelectionError,
    UnknownNetwork,
    UnknownNode,
    UnknownSubnet,
)
from hybridnet.ipam.selection import Choice, Defaults, IPFamily, Request, choose, parse_family, read_request
from hybridnet.ipam.validity import Judgement, judge
from hybridnet.model.labels import PREFIX
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import AddressRange, Network, NetworkSpec, NetworkType, Subnet, SubnetSpec

NODES = {"node1": {"rack": "1"}, "node3": {}, "bgp1": {"rack": "bgp"}}


def network(name: str, kind: str, rack: str = "", mode: str = "", net_id: int = 0) -> Network:
    selector = {"rack": rack} if rack else {}
    return Network(
        metadata=ObjectMeta(name=name),
        spec=NetworkSpec(type=kind, mode=mode, node_selector=selector, net_id=net_id),
    )


def subnet(name: str, of: str, cidr: str, gateway: str = "") -> Subnet:
    version = "6" if ":" in cidr else "4"
    return Subnet(
        metadata=ObjectMeta(name=name),
        spec=SubnetSpec(network=of, range=AddressRange(version=version, cidr=cidr, gateway=gateway)),
    )


@pytest.fixture(scope="module")
def judgement() -> Judgement:
    return judge(
        [
            network("underlay", "Underlay", "1"),
            network("zz-underlay", "Underlay", "1"),
            network("overlay", "Overlay"),
            network("routed", "Underlay", "bgp", mode="BGP", net_id=64512),
            network("global", "GlobalBGP"),
            network("young-overlay", "Overlay"),
        ],
        [
            subnet("under4", "underlay", "192.168.56.0/24", "192.168.56.1"),
            subnet("over4", "overlay", "100.10.0.0/24"),
            subnet("over6", "overlay", "fd00::/120"),
            subnet("overlapping", "overlay", "100.10.0.0/25"),
        ],
    )


def meta(labels: dict[str, str] | None = None, **annotations: str) -> ObjectMeta:
    return ObjectMeta(
        annotations={f"{PREFIX}/{key.replace('_', '-')}": value for key, value in annotations.items()},
        labels={f"{PREFIX}/{key}": value for key, value in (labels or {}).items()},
    )


def decide(
    judgement: Judgement, request: Request, node: str = "node1", defaults: Defaults | None = None
) -> Choice:
    return choose(
        request, defaults or Defaults(NetworkType.UNDERLAY, IPFamily.V4_ONLY), judgement, node, NODES
    )


@pytest.mark.spec("A4", "E11")
def test_families_and_types_are_read_in_any_case() -> None:
    words = {"ipv4": "IPv4Only", "IPv4Only": "IPv4Only", "IPv6Only": "IPv6Only", "dualStack": "DualStack"}
    assert {word: str(parse_family(word)) for word in words} == words
    request = read_request(meta(network_type="overlay", ip_family="IPV6"), None)
    assert request == Request(type=NetworkType.OVERLAY, family=IPFamily.V6_ONLY)
    for bad in (meta(network_type="magic"), meta(ip_family="v4")):
        with pytest.raises(InvalidRequest, match="is none of"):
            read_request(bad, None)


@pytest.mark.spec("E1", "E2", "E3", "E8")
def test_annotations_beat_labels_and_the_pod_beats_its_namespace() -> None:
    both = meta({"specified-network": "overlay"}, specified_network="underlay")
    assert read_request(both, meta(specified_network="x")).network == "underlay"
    assert read_request(meta({"specified-network": "overlay"}), None).network == "overlay"
    assert read_request(meta(), meta(specified_network="overlay")).network == "overlay"
    assert read_request(meta(), None) == Request()


@pytest.mark.spec("E9")
def test_levels_are_never_merged() -> None:
    request = read_request(meta(ip_family="IPv6"), meta(specified_network="overlay"))
    assert request == Request(family=IPFamily.V6_ONLY)


def test_the_family_is_no_label() -> None:
    assert read_request(meta({"ip-family": "IPv6"}), None) == Request()


@pytest.mark.spec("A1", "A2", "A3", "E6")
def test_the_type_and_the_node_decide_when_no_network_is_named(judgement: Judgement) -> None:
    assert decide(judgement, Request()) == Choice("underlay", IPFamily.V4_ONLY, (None,))
    overlay = Request(type=NetworkType.OVERLAY, family=IPFamily.DUAL_STACK)
    assert decide(judgement, overlay, "node3") == Choice("overlay", IPFamily.DUAL_STACK, (None, None))
    assert decide(judgement, Request(type=NetworkType.GLOBAL_BGP), "bgp1").network == "global"


@pytest.mark.spec("A20")
def test_a_subnet_implies_its_network(judgement: Judgement) -> None:
    assert decide(judgement, Request(subnets=("over4",))) == Choice("overlay", IPFamily.V4_ONLY, ("over4",))
    pair = Request(subnets=("over4", "over6"), family=IPFamily.DUAL_STACK)
    assert decide(judgement, pair).subnets == ("over4", "over6")


@pytest.mark.spec("A16", "A17", "A18", "A19", "E10", "E12", "E22")
@pytest.mark.parametrize(
    ("request_", "node", "error", "says"),
    [
        (Request(network="nowhere"), "node1", UnknownNetwork, "does not exist (there are: global, overlay"),
        (Request(network="young-overlay"), "node1", UnknownNetwork, "overlay is older"),
        (Request(network="underlay"), "node3", NodeNotInNetwork, "rack=1"),
        (Request(network="global"), "node3", NodeNotInNetwork, "BGP network"),
        (Request(type=NetworkType.UNDERLAY), "node3", NoNetwork, "node node3 is in no Underlay network"),
        (
            Request(network="underlay", type=NetworkType.OVERLAY),
            "node1",
            InvalidRequest,
            "is of type Underlay",
        ),
        (Request(subnets=("nope",)), "node1", UnknownSubnet, "does not exist"),
        (Request(subnets=("overlapping",)), "node1", UnknownSubnet, "overlaps"),
        (
            Request(network="overlay", subnets=("under4",)),
            "node1",
            InvalidRequest,
            "belongs to network underlay",
        ),
        (Request(subnets=("over6",)), "node1", InvalidRequest, "subnet over6 is IPv6"),
        (Request(subnets=("over4", "over6")), "node1", InvalidRequest, "names 2 subnet(s)"),
        (
            Request(subnets=("over4",), family=IPFamily.DUAL_STACK),
            "node1",
            InvalidRequest,
            "v4subnet/v6subnet",
        ),
        (Request(subnets=("over6", "over4"), family=IPFamily.DUAL_STACK), "node1", InvalidRequest, "order"),
        (
            Request(subnets=("over4", "under4"), family=IPFamily.DUAL_STACK),
            "node1",
            InvalidRequest,
            "belongs",
        ),
        (Request(subnets=("a", "b", "c")), "node1", InvalidRequest, "at most two"),
        (Request(), "node9", UnknownNode, "node9"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    judgement: Judgement, request_: Request, node: str, error: type[SelectionError], says: str
) -> None:
    with pytest.raises(error) as caught:
        decide(judgement, request_, node)
    assert says in str(caught.value)


def test_a_cluster_without_networks_says_what_to_create() -> None:
    with pytest.raises(NoNetwork, match="there is no Overlay network; create one"):
        decide(judge([], []), Request(type=NetworkType.OVERLAY))
