"""The access matrix of the lab is as promised, and what is broken on purpose is reported as broken."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hybridnet.lab.cluster import Cluster
from hybridnet.lab.matrix.cells import NO_ROUTE, ROUTE, Cell, Kind, Path, Protocol, Result
from hybridnet.lab.matrix.cluster import run_matrix
from hybridnet.lab.matrix.judge import Fabric, where_to_look
from hybridnet.lab.matrix.pods import participants
from hybridnet.lab.matrix.run import MatrixResult, plan_cells, run_cells
from hybridnet.lab.processes import Place, run
from hybridnet.lab.state import ProxyMode
from hybridnet.lab.system import program
from hybridnet.lab.topology import OVERLAY_ID, VXLAN_PORT
from hybridnet.model.address import Family
from tests.lab.workloads import eventually, process

NODE = "node1"
PODS = (Kind.OVERLAY, Kind.UNDERLAY)


def on_node(cluster: Cluster, *command: str) -> str:
    return run(command, cluster.node(NODE).place).stdout.decode()


def network(cluster: Cluster) -> list[str]:
    """What the tests break: rules and FDB of the node, in any order."""
    commands = (("ip", "-4", "rule"), ("ip", "-6", "rule"), ("bridge", "fdb", "show", "dev", "hybrvx4"))
    return sorted(line for command in commands for line in on_node(cluster, *command).splitlines())


@contextmanager
def agent_stopped(cluster: Cluster) -> Iterator[None]:
    """The node's agent repairs nothing; afterwards it does what it missed."""
    pid = process(cluster, "agent", f"--node-name={NODE}")
    before = network(cluster)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually("the agent has repaired its node", lambda: network(cluster) == before)


def run_broken(cluster: Cluster, break_it: Callable[[], object]) -> MatrixResult:
    """The matrix of a cluster whose node was broken when the pods ran, before anything was probed."""
    with ExitStack() as stack:

        def before_probing() -> None:
            stack.enter_context(agent_stopped(cluster))
            break_it()

        matrix = run_matrix(cluster, before_probing=before_probing)
    assert matrix.dropped == 0
    return matrix


def wrong(matrix: MatrixResult) -> list[Result]:
    return [r for r in matrix.results if not r.ok]


def names(results: list[Result]) -> set[str]:
    return {
        f"{r.cell.sender.name} > {r.cell.receiver.name} v{r.cell.family} {r.cell.protocol} {r.cell.note}"
        for r in results
    }


def is_tunnelled(cell: Cell) -> bool:
    """Whether a cell belongs into a tunnel that begins or ends on the node."""
    pods = cell.receiver.kind in PODS and cell.sender.kind is not Kind.EXTERNAL
    overlay = Kind.OVERLAY in (cell.sender.kind, cell.receiver.kind)
    nodes = {cell.sender.node, cell.receiver.node}
    return pods and overlay and len(nodes) == 2 and NODE in nodes


@pytest.mark.spec(
    "T23", "T24", "T25", "T26", "T29", "T33", "T34", "T35", "T36", "T38", "T39", "T40", "T41", "T42"
)
def test_every_cell_is_as_promised(cluster: Cluster) -> None:
    matrix = run_matrix(cluster)
    assert [(r.cell.row, r.cell.family, r.cell.protocol, r.seen) for r in wrong(matrix)] == []
    assert matrix.ok
    rows = {r.cell.row for r in matrix.results}
    kinds = {(r.cell.sender.kind, r.cell.receiver.kind, r.cell.same_node) for r in matrix.results}
    assert ("external → overlay", "with route") in rows
    assert ("external → overlay", "no route") in rows
    for sender in PODS:
        for receiver in (*PODS, Kind.NODE):
            assert {(sender, receiver, True), (sender, receiver, False)} <= kinds
    services = {
        (r.cell.sender.kind, r.cell.receiver.kind, r.cell.same_node) for r in matrix.results if r.cell.service
    }
    assert services == {(s, r, same) for s in PODS for r in PODS for same in (True, False)}


@pytest.mark.spec("T42")
def test_by_a_route_to_the_wrong_node_packets_go_on_through_the_tunnel(
    cluster: Cluster,
) -> None:
    topology = cluster.topology
    router = Place(network=topology.namespace_path("router"))
    nodes = {name: tuple(i.ip for i in topology.node(name).addresses) for name in topology.node_names}
    switch = str(topology.namespace_path("switch"))
    with participants(cluster) as (endpoints, _), ExitStack() as stack:
        cells = [c for c in plan_cells(endpoints, []) if c.note == ROUTE]
        for target, via in {c.target: nodes["node3"][c.family is Family.V6] for c in cells}.items():
            run(["ip", "route", "replace", str(target), "via", str(via)], router)
            stack.callback(run, ["ip", "route", "del", str(target)], router)
        fabric = Fabric(OVERLAY_ID, VXLAN_PORT, nodes)
        matrix = asyncio.run(run_cells(cells, switch, fabric, lambda *_: None))
    assert len(cells) == 18
    marked = [r for r in matrix.results if r.cell.protocol is not Protocol.TCP]
    seen = {(r.seen.reached, r.seen.source, r.seen.request, r.seen.reply) for r in marked}
    assert seen == {(True, str(each.ip), Path.MIXED, Path.NATIVE) for each in topology.external.addresses}
    # This node sees one direction of a connection: to conntrack it is invalid, which iptables' kube-proxy drops
    connected = {r.seen.reached for r in matrix.results if r.cell.protocol is Protocol.TCP}
    assert connected == {cluster.description.kube_proxy is not ProxyMode.IPTABLES}


@pytest.mark.spec("T24", "T26", "T33")
def test_a_stopped_agent_breaks_nothing_even_when_the_neighbours_are_forgotten(cluster: Cluster) -> None:
    matrix = run_broken(cluster, lambda: on_node(cluster, "ip", "neigh", "flush", "dev", "hybrvx4"))
    assert names(wrong(matrix)) == set()


@pytest.mark.spec("T24", "T26")
def test_a_deleted_rule_breaks_the_cells_that_need_it_and_no_others(cluster: Cluster) -> None:
    def delete() -> None:
        for family in ("-4", "-6"):
            on_node(cluster, "ip", family, "rule", "del", "pref", "2010")

    def needs_it(cell: Cell) -> bool:
        """From the node to overlay pods elsewhere; what is answered by tunnel to a node has another rule."""
        there = cell.sender.node == NODE and cell.receiver.kind is Kind.OVERLAY
        back = cell.receiver.node == NODE and cell.sender.kind is Kind.OVERLAY
        return is_tunnelled(cell) and (there or back)

    matrix = run_broken(cluster, delete)
    assert names(wrong(matrix)) == names([r for r in matrix.results if needs_it(r.cell)])
    assert all(f"on {NODE}" in where_to_look(r) for r in wrong(matrix))


@pytest.mark.spec("T24", "T26", "T33")
def test_a_wrong_fdb_entry_is_reported_with_the_node_to_look_at(cluster: Cluster) -> None:
    def misdirect() -> None:
        entries = on_node(cluster, "bridge", "fdb", "show", "dev", "hybrvx4").splitlines()
        mac = next(e.split()[0] for e in entries if "172.31.0.12" in e and not e.startswith("ff:ff"))
        on_node(cluster, "bridge", "fdb", "replace", mac, "dev", "hybrvx4", "dst", "172.31.0.13", "self")

    matrix = run_broken(cluster, misdirect)
    found = wrong(matrix)
    assert names(found) == names([r for r in matrix.results if is_tunnelled(r.cell)])
    for result in found:
        assert not result.seen.reached
        assert "bridge fdb show" in where_to_look(result)
        if result.cell.protocol is not Protocol.TCP:  # a handshake is not marked
            assert Path.MIXED in (result.seen.request, result.seen.reply)
            assert "tunnelled 172.31.0.11 → 172.31.0.13, not from node1 to node2" in result.seen.detail


@pytest.mark.spec("T39", "T40", "T41")
def test_the_command_ends_with_1_when_a_cell_is_wrong_and_lists_all_as_json(cluster: Cluster) -> None:
    external = Place(network=cluster.topology.namespace_path("external"))
    gateway = str(cluster.topology.external.gateways[0])
    command = [*program("lab"), "matrix", "--json", f"--name={cluster.topology.lab}"]
    run(["ip", "-4", "route", "del", "default"], external)
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    finally:
        run(["ip", "-4", "route", "add", "default", "via", gateway], external)
    assert done.returncode == 1, done.stderr
    cells = json.loads(done.stdout)
    assert len(cells) > 500
    cut_off = [
        c
        for c in cells
        if "external" in (c["from"], c["to"]) and c["family"] == "v4" and c["via"] != NO_ROUTE
    ]
    wrong = [c for c in cells if not c["ok"]]
    assert [(c["sender"], c["target"], c["protocol"]) for c in wrong] == [
        (c["sender"], c["target"], c["protocol"]) for c in cut_off
    ]
    assert all(c["next"] and not c["reached"] for c in wrong)
