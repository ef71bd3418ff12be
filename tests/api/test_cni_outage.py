"""The API server is away, hung or refuses us; the node has no Node object, or no NIC."""

import signal

import pytest

from hybridnet.model.resource import NODES
from tests.api.cni_objects import OVERLAY, UNDERLAY
from tests.api.cni_world import NODE_ADDRESSES, World


@pytest.mark.spec("T09", "T12")
def test_while_the_api_server_hangs_known_addresses_are_served_and_others_are_refused(
    restarted: World,
) -> None:
    node = restarted
    node.restart_agent("--address-timeout=1")
    addresses = node.objects.give("known", (4, 6))
    node.shim.add(node.sandbox("known"))
    pod = node.sandbox("known")
    unknown = node.sandbox("unknown")
    node.path.hang()
    try:
        node.shim.add(pod)
        for address in addresses:
            assert node.node.pings(address)
        answer = node.shim.call("ADD", unknown)
        assert (answer.status, answer.code) == (1, 11)
        node.shim.delete(pod)
        assert node.shim.call("STATUS").status == 0
    finally:
        node.path.resume()
    node.objects.give("unknown")
    assert node.shim.add(unknown)["ips"]


@pytest.mark.spec("T09")
@pytest.mark.parametrize("cause", ["hung", "forbidden"])
def test_an_agent_that_cannot_read_the_cluster_says_so_and_still_answers_del(
    restarted: World, cause: str
) -> None:
    node = restarted
    node.objects.give("early", (4, 6))
    pod = node.sandbox("early")
    node.shim.add(pod)
    node.stop_agent()
    if cause == "hung":
        node.path.hang()
    try:
        user = "nobody-in-particular" if cause == "forbidden" else ""
        node.launch_agent("--address-timeout=1", user=user)
        node.eventually(
            "it answers", lambda: node.shim.call("STATUS").message.startswith("the agent has not")
        )
        assert node.shim.call("STATUS").code == 50
        refused = node.shim.call("ADD", node.sandbox("other"))
        assert refused.code == 11
        assert "has not read the cluster's networks" in refused.message
        node.shim.delete(pod)
        assert pod.net.link("eth0") == {}
    finally:
        node.path.resume()


def test_an_agent_without_capabilities_ends_with_what_it_needs(restarted: World) -> None:
    node = restarted
    node.stop_agent(signal.SIGTERM)
    agent = node.launch_agent(wrapper=["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
    node.eventually("it has ended", lambda: not agent.is_running)
    assert "CAP_NET_ADMIN" in node.log.read_text()
    assert "Traceback" not in node.log.read_text()
    node.stop_agent()


@pytest.mark.spec("T04", "T09")
def test_while_the_api_server_is_away_an_unknown_pod_is_told_so(restarted: World) -> None:
    node = restarted
    node.restart_agent("--address-timeout=1")
    before = node.state()
    (address,) = node.objects.give("known")
    known, unknown = node.sandbox("known"), node.sandbox("unknown")
    node.path.cut()
    try:
        node.eventually("it is noticed", lambda: "API server is away" in node.shim.call("ADD", unknown).text)
        node.shim.add(known)
        assert node.node.pings(address)
        node.shim.delete(known)
        assert node.state() == before
    finally:
        node.path.mend()
    node.objects.give("unknown")
    node.eventually("it works again", lambda: node.shim.call("ADD", unknown).status == 0)


@pytest.mark.spec("T09")
def test_a_stopping_agent_lets_go_of_an_add_that_waits(restarted: World) -> None:
    node = restarted
    before = node.state()
    pod = node.sandbox("waiting")
    call = node.shim.start("ADD", pod)
    assert call.stdin is not None
    call.stdin.write(node.shim.stdin("1.0.0"))
    call.stdin.flush()
    call.stdin.close()
    node.eventually("the agent has the call", lambda: node.connections() == 1)
    node.stop_agent(signal.SIGTERM)
    assert call.wait() == 1
    assert call.stdout is not None
    assert b'"code":11' in call.stdout.read()
    assert node.state() == before


@pytest.mark.spec("T91")
def test_without_its_node_object_an_agent_keeps_what_is_there_and_refuses_pods(restarted: World) -> None:
    node = restarted
    addresses = node.objects.give("kept", (4, 6))
    pod = node.sandbox("kept")
    node.shim.add(pod)
    state, link = node.state(), node.node.link("hybrvx4")
    node.stop_agent(signal.SIGTERM)
    manifest = node.objects.get(NODES.path("", node.name))
    node.objects.api.send("DELETE", NODES.path("", node.name))
    node.start_agent("--address-timeout=1")
    assert node.state() == state
    assert node.node.link("hybrvx4")["ifindex"] == link["ifindex"]
    for address in addresses:
        assert node.node.pings(address)
    node.objects.give("early")
    answer = node.shim.call("ADD", node.sandbox("early"))
    assert (answer.status, answer.code) == (1, 11)
    assert "Node object" in answer.message
    metadata = {"name": node.name, "labels": manifest["metadata"]["labels"]}
    status, stored = node.objects.api.send("POST", NODES.path(), {"metadata": metadata})
    assert status == 201, stored
    node.objects.set_node_addresses([a.split("/")[0] for a in NODE_ADDRESSES])
    late = node.sandbox("early")
    node.eventually("pods are served", lambda: node.shim.call("ADD", late).status == 0)
    assert state <= node.state()


@pytest.mark.spec("T14", "T94")
@pytest.mark.parametrize("network", [OVERLAY, UNDERLAY])
def test_without_its_nic_a_node_refuses_pods_and_serves_them_when_it_is_back(
    node: World, network: str
) -> None:
    before = node.state()
    node.objects.give("unplugged", (4, 6), network)
    pod = node.sandbox("unplugged")
    node.node.ip("link delete eth0")
    answer = node.shim.call("ADD", pod)
    node.eventually("it is noticed", lambda: node.shim.call("ADD", pod).status == 1)
    answer = node.shim.call("ADD", pod)
    assert answer.code == 11
    assert "NIC" in answer.message
    node.shim.delete(pod)
    assert node.state() == before
    node.wire()
    node.eventually("it is back", lambda: node.shim.call("ADD", pod).status == 0)
    assert node.node.link("hybrvx4")
    node.eventually("the node is ready", node.is_ready)


@pytest.mark.spec("T94")
def test_a_nic_that_went_down_and_up_serves_pods_as_before(node: World) -> None:
    addresses = node.objects.give("bounced", (4, 6))
    node.shim.add(node.sandbox("bounced"))
    state = node.state()
    node.node.ip(
        "link set eth0 down", "link set eth0 up", f"address replace {NODE_ADDRESSES[1]} dev eth0 nodad"
    )
    node.eventually("all is as before", lambda: node.state() == state)
    for address in addresses:
        assert node.node.pings(address)
    more = node.objects.give("later", (4, 6))
    node.shim.add(node.sandbox("later"))
    for address in more:
        assert node.node.pings(address)
