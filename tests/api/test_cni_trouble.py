"""An agent that is slow, hung, stopped, or cut off: what the runtime is told, and that nothing is left behind."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hybridnet.lab.binaries import CHECKOUT
from hybridnet.lab.processes import run
from tests.api.cni_shim import Answer, Shim
from tests.api.cni_world import World

DEADLINE = 2
KILLS = 12
WHOLE = sorted(["device", "record", *2 * ["element", "proxy", "route"]])
"""Kinds of what a dual stack pod of the overlay has on its node."""


@pytest.fixture(scope="module")
def impatient(node_world: World, tmp_path_factory: pytest.TempPathFactory) -> Shim:
    """The executable with a deadline that a test can wait for."""
    built = tmp_path_factory.mktemp("impatient") / "hybridnet"
    define = f"DEFINES=-DDEADLINE_SECONDS={DEADLINE}"
    run(["make", "-s", "-C", str(CHECKOUT / "cni"), f"OUT={built}", define])
    return Shim(built, node_world.shim.socket)


@pytest.mark.spec("T04")
def test_a_pod_that_gets_no_address_is_refused_with_where_to_look(restarted: World) -> None:
    node = restarted
    node.restart_agent("--address-timeout=1")
    before = node.state()
    pod = node.sandbox("forgotten")
    answer = node.shim.call("ADD", pod)
    assert (answer.status, answer.code) == (1, 11)
    assert f"{pod.namespace}/forgotten has no address" in answer.message
    assert node.state() == before
    assert [link["ifname"] for link in pod.net.show("link show")] == ["lo"]


@pytest.mark.spec("T04")
def test_a_pod_that_gets_one_of_two_addresses_is_told_which_is_missing(restarted: World) -> None:
    node = restarted
    node.restart_agent("--address-timeout=1")
    before = node.state()
    node.objects.give("half", (4, 6), only=(4,))
    answer = node.shim.call("ADD", node.sandbox("half"))
    assert (answer.status, answer.code) == (1, 11)
    assert "half wants DualStack but has only" in answer.message
    assert node.state() == before


@pytest.mark.spec("T12")
def test_an_address_of_another_pod_of_that_name_is_not_taken(restarted: World) -> None:
    node = restarted
    node.restart_agent("--address-timeout=1")
    before = node.state()
    node.objects.give("reborn")
    pod = node.sandbox("reborn")
    arguments = f"K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME=reborn;K8S_POD_UID=another"
    answer = node.shim.call("ADD", pod, CNI_ARGS=arguments)
    assert (answer.status, answer.code) == (1, 11)
    assert node.state() == before


@pytest.mark.spec("T04", "T12")
def test_a_subnet_that_the_node_does_not_serve_is_named(node: World) -> None:
    before = node.state()
    node.objects.give("misplaced", network="cnit-far")
    answer = node.shim.call("ADD", node.sandbox("misplaced"))
    assert (answer.status, answer.code) == (1, 11)
    assert node.name in answer.message
    assert "does not belong to network cnit-far" in answer.message
    assert node.state() == before


@pytest.mark.spec("T09")
def test_without_an_agent_add_says_so_and_del_succeeds_and_the_next_agent_sweeps(restarted: World) -> None:
    node = restarted
    before = node.state()
    node.objects.give("orphan", (4, 6))
    pod = node.sandbox("orphan")
    node.shim.add(pod)
    node.stop_agent(signal.SIGTERM)
    for command in ("ADD", "CHECK"):
        answer = node.shim.call(command, pod)
        assert (answer.status, answer.code) == (1, 11)
        assert "agent of this node does not answer" in answer.message
        assert str(node.shim.socket) in answer.body["details"]
    assert node.shim.call("STATUS").code == 50
    node.shim.delete(pod)
    assert node.shim.call("GC").status == 0
    pod.net.close()
    node.start_agent()
    assert node.state() == before


@pytest.mark.spec("T09")
def test_the_forwarding_of_a_pod_goes_on_without_an_agent(restarted: World) -> None:
    node = restarted
    addresses = node.objects.give("steady", (4, 6))
    node.shim.add(node.sandbox("steady"))
    node.stop_agent()
    for address in addresses:
        assert node.node.pings(address)


@pytest.mark.spec("T09", "T13")
def test_a_hung_agent_costs_no_more_than_the_deadline_and_forgets_what_was_given_up(
    node: World, impatient: Shim
) -> None:
    before = node.state()
    node.objects.give("hung", (4, 6))
    node.objects.give("living", (4, 6))
    pod, living = node.sandbox("hung"), node.sandbox("living")
    node.shim.add(living)
    os.kill(node.agent.pid, signal.SIGSTOP)
    try:
        answers = [impatient.call("ADD", pod), impatient.call("DEL", living), impatient.call("STATUS")]
    finally:
        os.kill(node.agent.pid, signal.SIGCONT)
    for answer in answers:
        assert (answer.status, answer.code) == (1, 11)
        assert "took too long" in answer.message
    node.shim.delete(living)
    node.eventually("what was given up is undone", lambda: node.state() == before)
    assert node.shim.add(pod)["ips"]


@pytest.mark.spec("T13")
def test_an_add_whose_caller_was_killed_while_it_waited_makes_nothing(node: World) -> None:
    before = node.state()
    pod = node.sandbox("killed")
    call = node.shim.start("ADD", pod)
    assert call.stdin is not None
    call.stdin.write(node.shim.stdin("1.0.0"))
    call.stdin.close()
    node.eventually("the agent has the call", lambda: node.connections() == 1)
    call.kill()
    call.wait()
    node.eventually("the agent has let the call go", lambda: node.connections() == 0)
    (address,) = node.objects.give("killed")
    settle = node.sandbox("settle")
    node.objects.give("settle")
    node.shim.add(settle)
    node.shim.delete(settle)
    assert node.objects.instance(address)
    node.eventually("nothing is there", lambda: node.state() == before)


@pytest.mark.spec("T13", "T14")
def test_an_add_whose_caller_was_killed_at_any_moment_is_there_as_a_whole_or_not_at_all(node: World) -> None:
    before = node.state()
    outcomes = set()
    for number in range(KILLS):
        node.objects.give(f"victim{number}", (4, 6))
        pod = node.sandbox(f"victim{number}")
        call = node.shim.start("ADD", pod)
        assert call.stdin is not None
        call.stdin.write(node.shim.stdin("1.0.0"))
        call.stdin.close()
        time.sleep(number * 0.0015)
        call.kill()
        call.wait()
        node.eventually("all or nothing", lambda: _kinds(node.state() - before) in ([], WHOLE))
        outcomes.add(node.state() == before)
        node.shim.delete(pod)
        assert node.state() == before
    assert True in outcomes


def _kinds(state: set[str]) -> list[str]:
    return sorted(word.split()[0] for word in state)


@pytest.mark.spec("T10")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("address delete {v4} dev eth0", "lost its address"),
        ("address delete {v6} dev eth0", "lost its address"),
        ("route delete default", "lost its route"),
        ("route delete ::/0 dev eth0", "lost its route"),
        ("route delete 169.254.1.1 dev eth0", "lost its route"),
        ("link set eth0 address 02:00:00:00:00:01", "02:00:00:00:00:01"),
        ("link set eth0 mtu 1280", "1280"),
        ("link set eth0 down", "down"),
        ("link delete eth0", "missing"),
    ],
)
def test_check_finds_what_the_pod_has_lost(node: World, damage: str, words: str) -> None:
    v4, v6 = node.objects.give("checked", (4, 6))
    pod = node.sandbox("checked")
    node.shim.add(pod)
    assert node.shim.call("CHECK", pod).status == 0
    pod.net.ip(damage.format(v4=f"{v4}/16", v6=f"{v6}/112"))
    answer = node.shim.call("CHECK", pod)
    assert answer.status == 1
    assert words in answer.message
    assert f"{pod.namespace}/checked" in answer.message


@pytest.mark.spec("T10")
def test_check_finds_a_dead_host_side_a_gone_namespace_and_an_unknown_sandbox(node: World) -> None:
    node.objects.give("checked")
    pod = node.sandbox("checked")
    device = node.shim.add(pod)["interfaces"][0]["name"]
    node.node.ip(f"link set {device} down")
    assert device in node.shim.call("CHECK", pod).message
    node.node.ip(f"link set {device} up")
    pod.net.close()
    assert "namespace" in node.shim.call("CHECK", pod).message
    node.shim.delete(pod)
    assert "does not know" in node.shim.call("CHECK", pod).message


@pytest.mark.spec("T14")
def test_a_full_disk_is_reported_and_leaves_nothing(node: World) -> None:
    before = node.state()
    node.objects.give("full", (4, 6))
    pod = node.sandbox("full")
    with Mounted(node.records, "size=4k"):
        (node.records / "filler").write_bytes(bytes(4096))
        answer = node.shim.call("ADD", pod)
        assert (answer.status, answer.code) == (1, 11)
        assert "No space left" in answer.message
        assert [path.name for path in node.records.iterdir()] == ["filler"]
    assert node.state() == before
    node.shim.add(pod)


@pytest.mark.spec("T14", "T07")
def test_del_succeeds_although_the_record_cannot_be_removed(node: World) -> None:
    before = node.state()
    node.objects.give("stuck", (4, 6))
    pod = node.sandbox("stuck")
    with Mounted(node.records, "size=1m"):
        node.shim.add(pod)
        run(["mount", "-o", "remount,ro", str(node.records)])
        node.shim.delete(pod)
        assert pod.net.link("eth0") == {}
        answer = node.shim.call("ADD", pod)
        assert (answer.status, answer.code) == (1, 11)
        assert "Read-only file system" in answer.message
        assert node.pod_devices() == set()
    assert node.state() == before


class Mounted:
    """A tmpfs over a folder."""

    def __init__(self, folder: Path, options: str) -> None:
        self._folder, self._options = str(folder), options

    def __enter__(self) -> None:
        run(["mount", "-t", "tmpfs", "-o", self._options, "cnit", self._folder])

    def __exit__(self, *_: object) -> None:
        run(["umount", self._folder])


@pytest.mark.spec("T14")
def test_the_tables_of_somebody_else_make_add_fail_and_leave_nothing(node: World) -> None:
    before = node.state()
    addresses = node.objects.give("locked", (4, 6))
    pod = node.sandbox("locked")
    script = "delete table inet hybridnet; add table inet hybridnet { flags owner; }\n"
    with Owner(node, script):
        answer = node.shim.call("ADD", pod)
        assert (answer.status, answer.code) == (1, 11), answer.text
        assert "nftables" in answer.message
        assert {word for word in node.state() if "element" not in word} == before
    node.eventually("the table is back", lambda: node.shim.call("ADD", pod).status == 0)
    for address in addresses:
        assert node.node.pings(address)


class Owner:
    """A program that holds our nftables table for itself until it ends."""

    def __init__(self, node: World, script: str) -> None:
        self._node, self._script = node, script

    def __enter__(self) -> None:
        command = self._node.node.place.wrap(["nft", "-i"], pdeathsig=True)
        self._nft = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._nft.stdin is not None
        self._nft.stdin.write(self._script.encode())
        self._nft.stdin.flush()
        self._node.eventually("the foreign table", self._is_foreign)

    def __exit__(self, *_: object) -> None:
        self._nft.kill()
        self._nft.wait()

    def _is_foreign(self) -> bool:
        return "flags owner" in self._node.node.shell(
            "nft", "list", "table", "inet", "hybridnet", check=False
        )


@pytest.mark.spec("T14")
def test_a_table_that_somebody_deleted_comes_back_with_the_next_add(node: World) -> None:
    older = node.objects.give("older", (4, 6))
    node.shim.add(node.sandbox("older"))
    newer = node.objects.give("newer", (4, 6))
    node.node.shell("nft", "delete", "table", "inet", "hybridnet")
    node.shim.add(node.sandbox("newer"))
    assert {str(a) for a in (*older, *newer)} <= node.elements(4) | node.elements(6)


@pytest.mark.spec("T14")
def test_a_tunnel_device_that_is_gone_makes_add_fail_whole_or_be_made_again(node: World) -> None:
    before = node.state()
    addresses = node.objects.give("tunnelless", (4, 6))
    pod = node.sandbox("tunnelless")
    node.node.ip("link delete hybrvx4")
    answer = node.shim.call("ADD", pod)
    if answer.status:
        assert node.state() == before
    node.eventually("the tunnel is back", lambda: node.shim.call("ADD", pod).status == 0)
    assert {f"proxy {a} hybrvx4" for a in addresses} <= node.state()


@pytest.mark.spec("T15")
def test_fifty_adds_at_once_all_succeed(node: World) -> None:
    names = [f"crowd{number}" for number in range(50)]
    addresses = {name: node.objects.give(name, (4, 6)) for name in names}
    pods = [node.sandbox(name) for name in names]
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda p=pod: answers.append(node.shim.call("ADD", p))) for pod in pods
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.text for a in answers if a.status] == []
    devices = [answer.body["interfaces"][0]["name"] for answer in answers]
    assert set(devices) == node.pod_devices()
    assert len(set(devices)) == 50
    for name in names:
        for address in addresses[name]:
            assert node.node.pings(address)
