"""What the API server itself refuses of a Network, and that it takes every manifest of the original."""

from collections.abc import Iterator
from typing import Any

import pytest

from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.resource import NETWORKS
from tests.api.raw import Manifest, RawApi

SELECTOR = {"network": "rack-1"}
PEER = {"asn": 65001, "address": "192.168.56.1"}


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Iterator[RawApi]:
    raw = RawApi(api_server.kubeconfig)
    yield raw
    raw.close()


def network(**spec: Any) -> Manifest:
    return {
        "apiVersion": NETWORKS.api_version,
        "kind": "Network",
        "metadata": {"name": "crd-network"},
        "spec": spec,
    }


def underlay(**spec: Any) -> Manifest:
    return network(**{"nodeSelector": SELECTOR, **spec})


def bgp(**spec: Any) -> Manifest:
    return underlay(**{"mode": "BGP", "netID": 65000, "config": {"bgpPeers": [PEER]}, **spec})


def overlay(**spec: Any) -> Manifest:
    return network(**{"type": "Overlay", "netID": 4, **spec})


ACCEPTED = {
    "underlay by default": underlay(netID=0),
    "underlay without netID (its subnets have it)": underlay(type="Underlay"),
    "underlay with empty type and mode": underlay(type="", mode="", netID=100),
    "largest VLAN id": underlay(mode="VLAN", netID=4094),
    "netID null": underlay(netID=None, config=None),
    "overlay": overlay(),
    "overlay with everything written": overlay(type="Overlay", mode="VXLAN", nodeSelector={}),
    "largest VNI": overlay(netID=2**24 - 1),
    "global BGP": network(type="GlobalBGP"),
    "global BGP with null netID": network(type="GlobalBGP", mode="GlobalBGP", netID=None),
    "BGP": bgp(),
    "BGP with every field of a peer": bgp(
        config={
            "bgpPeers": [
                {
                    "asn": 4200000000,
                    "address": "fd00::1",
                    "gracefulRestartSeconds": 300,
                    "password": "secret",
                    "doesNotRouteTraffic": True,
                    "allowNotEstablished": True,
                },
                PEER,
            ]
        }
    ),
    "BGP with an AS number of 32 bits": bgp(netID=4294967295),
    "peers in a mode that does not use them": underlay(config={"bgpPeers": [PEER]}),
    "bridge": underlay(mode="Bridge"),
    "bridge with netID 0": underlay(mode="Bridge", netID=0, config={"bridge": "br-lan"}),
}

DENIED = [
    pytest.param(network(netID=1), "needs nodeSelector", id="underlay without selector"),
    pytest.param(network(nodeSelector={}), "needs nodeSelector", id="underlay with empty selector"),
    pytest.param(
        {k: v for k, v in network().items() if k != "spec"}, "a Network needs a spec", id="no spec at all"
    ),
    pytest.param(overlay(nodeSelector=SELECTOR), "leave it out", id="overlay with selector"),
    pytest.param(network(type="Overlay"), "needs netID", id="overlay without netID"),
    pytest.param(overlay(netID=None), "needs netID", id="overlay with null netID"),
    pytest.param(network(type="GlobalBGP", netID=1), "has no netID", id="global BGP with netID"),
    pytest.param(
        network(type="GlobalBGP", nodeSelector=SELECTOR), "leave it out", id="global BGP with selector"
    ),
    pytest.param(bgp(netID=None), "the AS number of the nodes", id="BGP without netID"),
    pytest.param(bgp(config=None), "needs config.bgpPeers", id="BGP with null config"),
    pytest.param(underlay(mode="BGP", netID=1), "needs config.bgpPeers", id="BGP without config"),
    pytest.param(bgp(config={"bgpPeers": []}), "needs config.bgpPeers", id="BGP without peers"),
    pytest.param(
        bgp(config={"bgpPeers": [{"asn": 1, "address": "192.168.8"}]}),
        '"192.168.8" is not an IP address',
        id="BGP with a bad peer address",
    ),
    pytest.param(
        bgp(config={"bgpPeers": [{"asn": 1, "address": ""}]}), "not an IP address", id="empty peer address"
    ),
    pytest.param(
        bgp(config={"bgpPeers": [{"asn": 0, "address": "10.0.0.1"}]}),
        "greater than or equal to 1",
        id="BGP with peer AS number 0",
    ),
    pytest.param(underlay(type="Sidelay"), 'Unsupported value: "Sidelay"', id="unknown type"),
    pytest.param(underlay(mode="IPVLAN"), 'Unsupported value: "IPVLAN"', id="unknown mode"),
    pytest.param(overlay(mode="VLAN"), "VXLAN needs Overlay", id="mode VLAN of an overlay"),
    pytest.param(overlay(mode="BGP"), "need type Underlay", id="mode BGP of an overlay"),
    pytest.param(overlay(mode="Bridge", netID=0), "need type Underlay", id="mode Bridge of an overlay"),
    pytest.param(underlay(mode="VXLAN", netID=1), "VXLAN needs Overlay", id="mode VXLAN of an underlay"),
    pytest.param(underlay(mode="GlobalBGP"), "GlobalBGP needs GlobalBGP", id="mode GlobalBGP of an underlay"),
    pytest.param(
        network(type="GlobalBGP", mode="BGP", netID=1), "need type Underlay", id="mode BGP of global BGP"
    ),
    pytest.param(underlay(netID=5000), "0 (untagged) to 4094", id="VLAN id 5000"),
    pytest.param(underlay(netID=4095), "0 (untagged) to 4094", id="VLAN id 4095"),
    pytest.param(underlay(netID=-1), "0 (untagged) to 4094", id="VLAN id -1"),
    pytest.param(overlay(netID=-1), "0 to 16777215", id="VNI -1"),
    pytest.param(overlay(netID=2**24), "0 to 16777215", id="VNI of 25 bits"),
    pytest.param(bgp(netID=0), "1 to 4294967295", id="AS number 0"),
    pytest.param(bgp(netID=2**32), "1 to 4294967295", id="AS number of 33 bits"),
    pytest.param(underlay(mode="Bridge", netID=7), "a Bridge network is untagged", id="bridge with netID"),
    pytest.param(underlay(config={"bridge": "br0"}), "only mode Bridge", id="bridge name in mode VLAN"),
    pytest.param(
        underlay(mode="Bridge", config={"bridge": "a/b"}), "name of a network device", id="bridge named a/b"
    ),
    pytest.param(underlay(mode="Bridge", config={"bridge": "b" * 16}), "Too long", id="16 letters of bridge"),
]

BRIDGED = underlay(mode="Bridge")
UPDATES_ACCEPTED = {
    "mode written out": (underlay(netID=1), underlay(netID=1, mode="VLAN", type="Underlay")),
    "mode left out": (overlay(mode="VXLAN"), overlay()),
    "other nodes": (underlay(netID=1), underlay(netID=1, nodeSelector={"network": "rack-2"})),
    "other peers": (bgp(), bgp(config={"bgpPeers": [{"asn": 2, "address": "fd00::2"}]})),
    "another bridge": (BRIDGED, underlay(mode="Bridge", config={"bridge": "br0"})),
    "netID null instead of absent": (BRIDGED, underlay(mode="Bridge", netID=None)),
}
UPDATES_DENIED = [
    pytest.param(overlay(), network(type="GlobalBGP"), "type is immutable", id="type"),
    pytest.param(underlay(), overlay(), "type is immutable", id="default type"),
    pytest.param(bgp(), bgp(mode="VLAN", netID=1), "mode is immutable", id="mode"),
    pytest.param(underlay(), underlay(mode="Bridge"), "mode is immutable", id="default mode"),
    pytest.param(overlay(), overlay(netID=5), "netID is immutable", id="netID"),
    pytest.param(underlay(), underlay(netID=0), "netID is immutable", id="netID added"),
    pytest.param(underlay(netID=3), underlay(), "netID is immutable", id="netID removed"),
    pytest.param(bgp(), bgp(config=None), "needs config.bgpPeers", id="BGP config removed"),
    pytest.param(underlay(), underlay(nodeSelector={}), "needs nodeSelector", id="selector emptied"),
    pytest.param(overlay(), overlay(nodeSelector=SELECTOR), "leave it out", id="selector of an overlay"),
    pytest.param(
        bgp(),
        bgp(config={"bgpPeers": [{"asn": 1, "address": "router"}]}),
        "not an IP address",
        id="peer address broken",
    ),
]


@pytest.mark.parametrize("manifest", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_network_of_the_original_is_accepted(api: RawApi, manifest: Manifest) -> None:
    assert api.try_create(NETWORKS, manifest) == ""


@pytest.mark.spec("N1", "N4", "N5", "N6", "N7", "N15")
@pytest.mark.parametrize(("manifest", "reason"), DENIED)
def test_a_wrong_network_is_refused_with_the_next_step(api: RawApi, manifest: Manifest, reason: str) -> None:
    assert reason in api.try_create(NETWORKS, manifest)


@pytest.mark.spec("N9")
@pytest.mark.parametrize(("old", "new"), UPDATES_ACCEPTED.values(), ids=UPDATES_ACCEPTED.keys())
def test_a_network_can_be_changed_where_nothing_depends_on_it(
    api: RawApi, old: Manifest, new: Manifest
) -> None:
    assert api.try_update(NETWORKS, old, new) == ""


@pytest.mark.spec("N8", "N10")
@pytest.mark.parametrize(("old", "new", "reason"), UPDATES_DENIED)
def test_a_change_that_pods_would_not_survive_is_refused(
    api: RawApi, old: Manifest, new: Manifest, reason: str
) -> None:
    assert reason in api.try_update(NETWORKS, old, new)
