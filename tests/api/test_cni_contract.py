"""The contract with the container runtime: what it calls, what it is told, what is there afterwards."""

import signal
import threading
from dataclasses import replace
from typing import Any

import pytest

from hybridnet.agent.protocol import VERSIONS
from tests.api.cni_objects import mac_of
from tests.api.cni_world import World

DEFAULT_ROUTES = {(4,): ["0.0.0.0/0"], (6,): ["::/0"], (4, 6): ["0.0.0.0/0", "::/0"]}
LENGTH = {4: 16, 6: 112}


@pytest.mark.spec("T01", "T02")
@pytest.mark.parametrize("families", DEFAULT_ROUTES, ids=str)
def test_add_makes_an_interface_that_the_node_reaches_and_names_both_ends(
    node: World, families: tuple[int, ...]
) -> None:
    addresses = node.objects.give("web-0", families)
    pod = node.sandbox("web-0")
    result = node.shim.add(pod)
    host, inside = result["interfaces"]
    assert {host["name"]} == node.pod_devices()
    assert host["mac"] == node.node.link(host["name"])["address"]
    assert "sandbox" not in host
    assert inside == {"name": "eth0", "mac": mac_of("web-0"), "sandbox": str(pod.net.path)}
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [
        (f"{a}/{LENGTH[a.version]}", 1) for a in addresses
    ]
    assert [route["dst"] for route in result["routes"]] == DEFAULT_ROUTES[families]
    for address in addresses:
        assert node.node.pings(address)


@pytest.mark.spec("T01", "T02")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_result_has_the_shape_of_the_version_that_was_asked_for(node: World, version: str) -> None:
    node.objects.give("web-0", (4, 6))
    result = node.shim.add(node.sandbox("web-0"), version)
    assert result["cniVersion"] == version
    assert set(result) == {"cniVersion", "interfaces", "ips", "routes", "dns"}
    marks = [ip.get("version") for ip in result["ips"]]
    assert marks == (["4", "6"] if version.startswith("0.") else [None, None])
    for ip in result["ips"]:
        assert set(ip) - {"version"} == {"interface", "address", "gateway"}


def test_version_lists_every_version_that_add_answers(node: World) -> None:
    answer = node.shim.call("VERSION")
    assert (answer.status, answer.body["supportedVersions"]) == (0, list(VERSIONS))


@pytest.mark.spec("T03")
def test_an_address_that_comes_two_seconds_late_is_waited_for(node: World) -> None:
    pod = node.sandbox("late")
    timer = threading.Timer(2.0, node.objects.give, ["late", (4,)])
    timer.start()
    try:
        (ip,) = node.shim.add(pod)["ips"]
    finally:
        timer.join()
    assert ip["address"].startswith("100.64.")


@pytest.mark.spec("T02", "T03")
def test_a_dual_stack_pod_waits_for_its_second_address(node: World) -> None:
    node.objects.give("slow", (4, 6), only=(4,))
    pod = node.sandbox("slow")
    call = node.shim.start("ADD", pod)
    answers: list[tuple[bytes, bytes]] = []
    reader = threading.Thread(target=lambda: answers.append(call.communicate(node.shim.stdin("1.0.0"))))
    reader.start()
    reader.join(0.5)
    assert call.poll() is None
    assert node.pod_devices() == set()
    node.objects.give("slow", (4, 6), only=(6,))
    reader.join()
    assert call.returncode == 0, answers
    assert {family for family, _ in addresses_in(pod.net.show("address show dev eth0"))} == {"inet", "inet6"}


def addresses_in(shown: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Family and address of the global addresses of ``ip address show``."""
    entries = [entry for link in shown for entry in link["addr_info"]]
    return {(e["family"], e["local"]) for e in entries if e["scope"] == "global"}


@pytest.mark.spec("T05")
def test_the_same_add_again_gives_the_same_answer_and_makes_nothing_new(node: World) -> None:
    addresses = node.objects.give("again", (4, 6))
    pod = node.sandbox("again")
    first = node.shim.add(pod)
    state, index = node.state(), node.node.link(first["interfaces"][0]["name"])["ifindex"]
    assert node.shim.add(pod) == first
    assert node.state() == state
    assert node.node.link(first["interfaces"][0]["name"])["ifindex"] == index
    for address in addresses:
        assert node.node.pings(address)


@pytest.mark.spec("T05")
def test_the_same_add_again_mends_what_was_broken_meanwhile(node: World) -> None:
    addresses = node.objects.give("mended", (4, 6))
    pod = node.sandbox("mended")
    first = node.shim.add(pod)
    state = node.state()
    node.node.ip(f"link delete {first['interfaces'][0]['name']}")
    assert node.shim.add(pod) == first
    assert node.state() == state
    for address in addresses:
        assert node.node.pings(address)


@pytest.mark.spec("T06")
def test_of_two_sandboxes_of_a_pod_the_newer_has_the_address_and_survives_the_end_of_the_older(
    node: World,
) -> None:
    addresses = node.objects.give("twice", (4, 6))
    older, newer = node.sandbox("twice"), node.sandbox("twice")
    node.shim.add(older)
    state = node.state()
    device = node.shim.add(newer)["interfaces"][0]["name"]
    served = {f"route {a} {device}" for a in addresses}
    assert served <= node.state()
    for address in addresses:
        assert node.node.pings(address)
    node.shim.delete(older)
    assert served <= node.state()
    assert len(node.state()) == len(state)
    for address in addresses:
        assert node.node.pings(address)


@pytest.mark.spec("T06")
def test_when_the_newer_sandbox_ends_first_the_older_has_the_address_again(node: World) -> None:
    addresses = node.objects.give("back", (4, 6))
    older, newer = node.sandbox("back"), node.sandbox("back")
    node.shim.add(older)
    state = node.state()
    node.shim.add(newer)
    node.shim.delete(newer)
    assert node.state() == state
    for address in addresses:
        assert node.node.pings(address)


@pytest.mark.spec("T07")
def test_del_removes_everything_and_may_be_repeated(node: World) -> None:
    before = node.state()
    node.objects.give("short", (4, 6))
    pod = node.sandbox("short")
    node.shim.add(pod)
    for _ in range(2):
        node.shim.delete(pod)
        assert node.state() == before
        assert pod.net.link("eth0") == {}


@pytest.mark.spec("T08")
@pytest.mark.parametrize("variables", [{}, {"CNI_NETNS": ""}, {"CNI_NETNS": "", "CNI_ARGS": ""}], ids=str)
def test_del_without_a_namespace_removes_what_the_host_has(node: World, variables: dict[str, str]) -> None:
    before = node.state()
    node.objects.give("gone", (4, 6))
    pod = node.sandbox("gone")
    node.shim.add(pod)
    pod.net.close()
    node.shim.delete(pod, **variables)
    assert node.state() == before


@pytest.mark.spec("T08")
def test_del_with_the_namespace_still_there_but_not_named_removes_the_link(node: World) -> None:
    before = node.state()
    node.objects.give("unnamed", (4, 6))
    pod = node.sandbox("unnamed")
    node.shim.add(pod)
    node.shim.delete(pod, CNI_NETNS="")
    assert node.state() == before
    assert pod.net.link("eth0") == {}


def test_del_of_a_sandbox_that_nobody_knows_is_success(node: World) -> None:
    before = node.state()
    node.shim.delete(node.sandbox("never-added"))
    assert node.state() == before


@pytest.mark.spec("T11")
def test_the_interface_has_the_name_that_the_runtime_wants(node: World) -> None:
    (address,) = node.objects.give("named")
    pod = replace(node.sandbox("named"), interface="net1")
    result = node.shim.add(pod)
    assert result["interfaces"][1]["name"] == "net1"
    assert pod.net.link("net1")["address"] == mac_of("named")
    assert pod.net.link("eth0") == {}
    assert node.node.pings(address)
    node.shim.delete(pod)


REFUSED: dict[str, tuple[dict[str, str], bytes | None, int, str]] = {
    "no pod name": ({"CNI_ARGS": "K8S_POD_NAMESPACE=default"}, None, 4, "K8S_POD_NAME"),
    "no container": ({"CNI_CONTAINERID": ""}, None, 4, "CNI_CONTAINERID"),
    "no namespace path": ({"CNI_NETNS": ""}, None, 4, "CNI_NETNS"),
    "namespace is gone": ({"CNI_NETNS": "/run/netns/hn-cnit-never"}, None, 11, "hn-cnit-never"),
    "namespace is a file": ({"CNI_NETNS": "/etc/hostname"}, None, 11, "/etc/hostname"),
    "interface is a path": ({"CNI_IFNAME": "../eth0"}, None, 4, "CNI_IFNAME"),
    "interface is too long": ({"CNI_IFNAME": "a-name-of-17-char"}, None, 4, "CNI_IFNAME"),
    "line break": ({"CNI_ARGS": "K8S_POD_NAME=a\r\nX: y"}, None, 4, "control character"),
    "control character": ({"CNI_CONTAINERID": "a\x01b"}, None, 4, "control character"),
    "variables too long": ({"CNI_ARGS": "K8S_POD_NAME=" + "x" * 70000}, None, 4, "too long"),
    "namespace of the node": ({"CNI_NETNS": "NODE", "CNI_IFNAME": "net1"}, None, 11, "node itself"),
    "unknown command": ({"CNI_COMMAND": "MAKE"}, None, 4, "MAKE"),
    "no command": ({"CNI_COMMAND": ""}, None, 4, "CNI_COMMAND"),
}


@pytest.mark.spec("T12")
@pytest.mark.parametrize("case", REFUSED)
def test_a_call_that_cannot_be_served_is_refused_with_what_is_wrong(node: World, case: str) -> None:
    variables, stdin, code, words = REFUSED[case]
    before = node.state()
    node.objects.give("refused")
    pod = node.sandbox("refused")
    if variables.get("CNI_NETNS") == "NODE":
        variables = {**variables, "CNI_NETNS": str(node.node.path)}
    routes = node.node.show("route show default")
    answer = node.shim.call("ADD", pod, stdin=stdin, **variables)
    assert node.node.show("route show default") == routes
    assert (answer.status, answer.code) == (1, code), answer.text
    assert words in answer.message + answer.body["details"]
    assert node.state() == before
    assert [link["ifname"] for link in pod.net.show("link show")] == ["lo"]


@pytest.mark.spec("T12")
@pytest.mark.parametrize(
    ("configuration", "code", "words"),
    [
        ('{"server_socket": "SOCKET", not json', 6, "network configuration"),
        ('{"server_socket": "SOCKET", "cniVersion": 1}', 6, "cniVersion"),
        ('{"server_socket": "SOCKET", "cniVersion": "9.9.9"}', 1, "9.9.9"),
        ('{"server_socket": ""}', 7, "server_socket"),
        ('{"server_socket": "/' + "x" * 200 + '"}', 7, "server_socket"),
        ('{"server_socket": "/nowhere/agent.sock"}', 11, "agent"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_what_is_wrong(
    node: World, configuration: str, code: int, words: str
) -> None:
    before = node.state()
    node.objects.give("configured")
    pod = node.sandbox("configured")
    stdin = configuration.replace("SOCKET", str(node.shim.socket)).encode()
    answer = node.shim.call("ADD", pod, stdin=stdin)
    assert (answer.status, answer.code) == (1, code), answer.text
    assert words in answer.message
    assert node.state() == before


def test_a_configuration_may_be_long_and_not_too_long(node: World) -> None:
    (address,) = node.objects.give("verbose")
    pod = node.sandbox("verbose")
    long = {"labels": "x" * 900_000}
    arguments = node.shim.variables(pod)["CNI_ARGS"] + ";NOTE=" + "x" * 30_000
    assert node.shim.call("ADD", pod, configuration=long, CNI_ARGS=arguments).status == 0
    assert node.node.pings(address)
    answer = node.shim.call("CHECK", pod, configuration={"labels": "x" * 1_100_000})
    assert (answer.status, answer.code) == (1, 7)


@pytest.mark.spec("T08", "T12")
@pytest.mark.parametrize("configuration", ["{not json", '{"cniVersion": "9.9.9"', "[]"])
def test_del_works_with_a_configuration_that_cannot_be_used(node: World, configuration: str) -> None:
    before = node.state()
    node.objects.give("misconfigured")
    pod = node.sandbox("misconfigured")
    node.shim.add(pod)
    stdin = f'{configuration} "server_socket": "{node.shim.socket}"'.encode()
    assert node.shim.call("DEL", pod, stdin=stdin).status == 0
    assert node.state() == before


def test_del_removes_a_record_that_cannot_be_read(restarted: World) -> None:
    node = restarted
    before = node.state()
    node.objects.give("garbled")
    pod = node.sandbox("garbled")
    node.shim.add(pod)
    node.stop_agent(signal.SIGTERM)
    (record,) = node.records.iterdir()
    record.write_text("{")
    node.start_agent()
    assert node.logged("sandbox record unreadable")
    node.shim.delete(pod)
    assert node.state() == before


@pytest.mark.spec("T11", "T12")
def test_a_foreign_interface_of_that_name_is_left_alone(node: World) -> None:
    before = node.state()
    node.objects.give("taken", (4, 6))
    pod = node.sandbox("taken")
    pod.net.ip("link add eth0 type veth peer name far")
    index = pod.net.link("eth0")["ifindex"]
    answer = node.shim.call("ADD", pod)
    assert (answer.status, answer.code) == (1, 11)
    assert "eth0" in answer.message
    assert node.state() == before
    assert pod.net.link("eth0")["ifindex"] == index


def test_the_socket_is_for_root_alone(node: World) -> None:
    assert node.shim.socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.spec("T01")
def test_the_status_of_the_address_names_the_sandbox(node: World) -> None:
    (address,) = node.objects.give("told")
    pod = node.sandbox("told")
    node.shim.add(pod)
    node.eventually("the status", lambda: bool(node.objects.instance(address).get("status")))
    status = node.objects.instance(address)["status"]
    assert status["sandboxID"] == pod.container
    assert (status["podName"], status["podNamespace"]) == ("told", pod.namespace)
    assert status["nodeName"] == node.name


def test_the_executable_needs_no_library_of_the_host(node: World) -> None:
    image = node.shim.executable.read_bytes()
    assert image.startswith(b"\x7fELF")
    assert b"/lib/ld-" not in image  # no interpreter: nothing is loaded
