"""Calls of the container runtime as values, results in its version."""

from ipaddress import ip_interface

import pytest

from hybridnet.agent.errors import BadRequest
from hybridnet.agent.protocol import VERSIONS, device_name, parse_call, result
from hybridnet.plan.endpoint import Endpoint, PodAddress

HEADERS = {
    "CNI-Command": "ADD",
    "CNI-ContainerID": "c1",
    "CNI-Netns": "/run/netns/p",
    "CNI-Ifname": "net1",
    "CNI-Args": "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_UID=u",
}


def endpoint() -> Endpoint:
    addresses = (
        PodAddress(ip_interface("10.0.0.5/24"), "a"),
        PodAddress(ip_interface("fd00::5/64"), "b"),
    )
    return Endpoint("c1", "net1", "hybr0", "ns", "web-0", "u", "02:12:34:00:00:01", 1450, "/n", addresses)


def test_a_call_is_read_from_headers_and_body() -> None:
    call = parse_call(HEADERS, b'{"cniVersion": "1.0.0", "name": "net", "server_socket": "/s"}')
    assert (call.command, call.container, call.interface) == ("ADD", "c1", "net1")
    assert (call.namespace, call.pod, call.uid) == ("ns", "web-0", "u")
    assert call.configuration.version == "1.0.0"


@pytest.mark.spec("T12")
@pytest.mark.parametrize(
    ("changes", "body", "words"),
    [
        ({"CNI-Args": "K8S_POD_NAMESPACE=ns"}, b"{}", "K8S_POD_NAME"),
        ({"CNI-Netns": ""}, b"{}", "CNI_NETNS"),
        ({"CNI-Command": "MAKE"}, b"{}", "MAKE"),
        ({"CNI-Ifname": "a-name-of-17-char"}, b"{}", "CNI_IFNAME"),
        ({"CNI-Ifname": "../etc"}, b"{}", "CNI_IFNAME"),
        ({}, b"{not json", "network configuration"),
        ({}, b'{"cniVersion": "9.9.9"}', "9.9.9"),
    ],
)
def test_a_malformed_call_is_refused_with_the_name_of_what_is_wrong(
    changes: dict[str, str], body: bytes, words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        parse_call({**HEADERS, **changes}, body)


@pytest.mark.spec("T08")
def test_del_needs_neither_namespace_nor_pod_name() -> None:
    call = parse_call({"CNI-Command": "DEL", "CNI-ContainerID": "c1", "CNI-Ifname": "eth0"}, b"")
    assert call.netns == call.pod == ""


@pytest.mark.spec("T01", "T02", "T11")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_result_names_both_ends_and_each_address(version: str) -> None:
    answer = result(endpoint(), version)
    host, pod = answer["interfaces"]  # type: ignore[misc]
    assert host == {"name": "hybr0", "mac": "ee:ee:ee:ee:ee:ee"}
    assert pod == {"name": "net1", "mac": "02:12:34:00:00:01", "sandbox": "/n"}
    ips = answer["ips"]
    assert [(i["address"], i["interface"]) for i in ips] == [("10.0.0.5/24", 1), ("fd00::5/64", 1)]  # type: ignore[attr-defined]
    assert all(("version" in i) == version.startswith("0.") for i in ips)  # type: ignore[attr-defined]
    assert [r["dst"] for r in answer["routes"]] == ["0.0.0.0/0", "::/0"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('{"cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}]}', [("c", "eth0")]),
        ('{"cni.dev/attachments": [{"containerID": "c", "ifname": "eth0"}]}', [("c", "eth0")]),
        ('{"cni.dev/valid-attachments": null}', []),
        ('{"cni.dev/valid-attachments": []}', []),
    ],
)
def test_gc_reads_what_is_still_in_use(body: str, found: list[tuple[str, str]]) -> None:
    call = parse_call({"CNI-Command": "GC"}, body.encode())
    assert [(a.container, a.interface) for a in call.attachments] == found


def test_gc_without_a_list_is_refused_not_taken_for_an_empty_one() -> None:
    with pytest.raises(BadRequest, match="valid-attachments"):
        _ = parse_call({"CNI-Command": "GC"}, b"{}").attachments


@pytest.mark.spec("T08", "T12")
@pytest.mark.parametrize("body", [b"{not json", b'{"cniVersion": "9.9.9"}', b'{"cniVersion": 1}'])
def test_del_does_not_depend_on_the_configuration(body: bytes) -> None:
    headers = {"CNI-Command": "DEL", "CNI-ContainerID": "c1", "CNI-Ifname": "eth0"}
    assert parse_call(headers, body).container == "c1"


@pytest.mark.spec("T06")
def test_two_sandboxes_of_one_pod_have_different_devices() -> None:
    names = {device_name(c, i) for c in ("a", "b") for i in ("eth0", "net1")}
    assert len(names) == 4
    assert all(len(n) == 15 and n.startswith("hybr") for n in names)
