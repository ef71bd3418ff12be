"""The matrix finds a sound network sound, and of a broken one exactly the cells that are broken."""

import asyncio
from collections.abc import Callable, Iterable

import pytest

from hybridnet.lab.matrix.cells import NO_ROUTE, ROUTE, Cell, Kind, Path, Protocol, Result
from hybridnet.lab.matrix.judge import Fabric, where_to_look
from hybridnet.lab.matrix.run import MatrixResult, plan_cells, run_cells
from hybridnet.model.address import Family
from tests.kernel.matrix_world import PODS, World
from tests.kernel.netns import Net

PODS_KINDS = (Kind.OVERLAY, Kind.UNDERLAY)


@pytest.fixture
def world(make_net: Callable[[], Net]) -> World:
    return World(make_net)


def run(world: World, *, routed: bool = False, fabric: Fabric | None = None) -> MatrixResult:
    cells = plan_cells(world.endpoints(), world.services())
    wanted = [cell for cell in cells if (cell.note == ROUTE) == routed]
    return asyncio.run(run_cells(wanted, world.path("switch"), fabric or world.fabric, lambda *_: None))


def wrong(matrix: MatrixResult) -> dict[str, Result]:
    assert matrix.dropped == 0
    return {label(r.cell): r for r in matrix.results if not r.ok}


def label(cell: Cell) -> str:
    """A cell in one line, so that a difference of two sets can be read."""
    service = f" by {cell.service}" if cell.service else ""
    note = f" {cell.note}" if cell.note else ""
    return f"{cell.sender.name} > {cell.receiver.name} v{cell.family} {cell.protocol}{service}{note}"


def labels(matrix: MatrixResult, condition: Callable[[Cell], bool]) -> set[str]:
    return {label(r.cell) for r in matrix.results if condition(r.cell)}


def is_tunnelled(cell: Cell) -> bool:
    """Whether a cell belongs into the tunnel."""
    ends = (cell.sender.kind, cell.receiver.kind)
    pods = cell.receiver.kind in PODS_KINDS and cell.sender.kind is not Kind.EXTERNAL
    return not cell.same_node and Kind.OVERLAY in ends and pods


def check(results: Iterable[Result], *, reached: bool, hint: str) -> None:
    """All *results* tell the same of their being reached, and where to look."""
    for result in results:
        assert result.seen.reached == reached, (label(result.cell), result.seen)
        assert hint in where_to_look(result), (label(result.cell), where_to_look(result))


@pytest.mark.spec(
    "T23", "T24", "T25", "T26", "T29", "T30", "T33", "T34", "T35", "T36", "T38", "T39", "T40", "T41"
)
def test_a_sound_network_is_as_expected_in_every_cell(world: World) -> None:
    matrix = run(world)
    assert wrong(matrix) == {}
    assert matrix.ok
    assert len(matrix.results) > 400
    paths = {(r.seen.request, r.seen.reply) for r in matrix.results if r.seen.reached}
    assert paths == {
        (Path.DIRECT, Path.DIRECT),
        (Path.VXLAN, Path.VXLAN),
        (Path.NATIVE, Path.NATIVE),
        (Path.MASQUERADED, Path.NATIVE),
    }


@pytest.mark.spec("T42")
def test_the_outside_reaches_overlay_pods_with_a_route_to_their_node_only(world: World) -> None:
    assert set(wrong(run(world, routed=True))) == labels(run(world, routed=True), lambda _: True)
    for pod in PODS:
        if pod.startswith("overlay"):
            world.ip("router", *world.outside_route(pod))
    matrix = run(world, routed=True)
    assert wrong(matrix) == {}
    assert matrix.results
    opened = run(world)
    assert set(wrong(opened)) == labels(opened, lambda c: c.note == NO_ROUTE)
    check(wrong(opened).values(), reached=True, hint="the router's routes")


def test_a_missing_rule_breaks_what_goes_from_its_node_into_the_overlay(world: World) -> None:
    world.nets["node1"].ip("-4 rule del pref 2010")
    matrix = run(world)

    def affected(cell: Cell) -> bool:
        there = cell.sender.node == "node1" and cell.receiver.kind is Kind.OVERLAY
        back = cell.receiver.node == "node1" and cell.sender.kind is Kind.OVERLAY
        return cell.family is Family.V4 and is_tunnelled(cell) and (there or back)

    found = wrong(matrix)
    assert set(found) == labels(matrix, affected)
    for result in found.values():
        assert "node1" in where_to_look(result)


def test_a_wrong_fdb_entry_breaks_the_tunnel_to_that_node_both_ways(world: World) -> None:
    vtep = "02:00:00:00:00:02"
    world.nets["node1"].shell("bridge", "fdb", "replace", vtep, "dev", "vx", "dst", "10.1.0.1")
    matrix = run(world)
    found = wrong(matrix)
    assert set(found) == labels(matrix, is_tunnelled)
    check(found.values(), reached=False, hint="bridge fdb show")
    marked = [r for r in found.values() if r.cell.protocol is not Protocol.TCP]
    assert all("tunnelled 10.1.0.11 → 10.1.0.1," in r.seen.detail for r in marked)


def test_masquerading_in_the_tunnel_shows_in_the_source_address(world: World) -> None:
    world.nft("node1", 'add rule inet world outgoing ip saddr 10.3.0.0/24 oifname "vx" masquerade')
    matrix = run(world)

    def affected(cell: Cell) -> bool:
        sender = cell.sender.kind is Kind.OVERLAY and cell.sender.node == "node1"
        return cell.family is Family.V4 and is_tunnelled(cell) and sender

    found = wrong(matrix)
    assert set(found) == labels(matrix, affected)
    assert {r.seen.source for r in found.values()} == {"10.1.0.11"}
    assert all(r.seen.request is Path.VXLAN for r in found.values())
    check(found.values(), reached=True, hint="on node1: nft list chain inet hybridnet nat")


def test_a_leak_beside_the_tunnel_shows_in_the_path_although_all_is_reached(world: World) -> None:
    world.nets["node1"].ip("-6 route del fd02::/64 table 40002")
    matrix = run(world)

    def affected(cell: Cell) -> bool:
        there = cell.sender.kind is Kind.OVERLAY and cell.sender.node == "node1"
        back = cell.receiver.kind is Kind.OVERLAY and cell.receiver.node == "node1"
        with_underlay = Kind.UNDERLAY in (cell.sender.kind, cell.receiver.kind)
        return cell.family is Family.V6 and is_tunnelled(cell) and with_underlay and (there or back)

    found = wrong(matrix)
    assert set(found) == labels(matrix, affected)
    check(found.values(), reached=True, hint="on node1")
    requests = {r.seen.request for r in found.values() if r.cell.sender.kind is Kind.OVERLAY}
    replies = {r.seen.reply for r in found.values() if r.cell.sender.kind is Kind.UNDERLAY}
    assert (requests, replies) == ({Path.MASQUERADED}, {Path.NATIVE})


def test_a_tunnel_that_carries_less_than_it_should_breaks_full_size_packets(world: World) -> None:
    world.ip("node1", "link set vx mtu 1400")
    matrix = run(world)
    found = wrong(matrix)

    def shares_the_address(cell: Cell) -> bool:
        """The kernel keeps one path MTU for an address: node2's is learnt from answers through the tunnel."""
        return (cell.sender.kind, cell.receiver.name) == (Kind.OVERLAY, "node2") and not cell.same_node

    tunnelled = labels(matrix, is_tunnelled)
    assert tunnelled <= set(found) <= tunnelled | labels(matrix, shares_the_address)
    learnt = [r.seen.detail for r in found.values() if r.cell.sender.node == "node1"]
    assert {each for each in learnt if "the path carries packets of" not in each} == set()


def test_a_missing_proxy_entry_cuts_an_underlay_pod_off_its_segment(world: World) -> None:
    world.nets["node2"].ip("neigh del proxy fd02::13 dev eth0")
    matrix = run(world)

    def affected(cell: Cell) -> bool:
        names = (cell.sender.name, cell.receiver.name)
        native = not cell.same_node and not is_tunnelled(cell)
        return cell.family is Family.V6 and native and "underlay-2" in names

    found = wrong(matrix)
    assert set(found) == labels(matrix, affected)
    assert all("neigh show proxy" in where_to_look(r) for r in found.values())


def test_a_tunnel_with_another_id_or_port_is_not_the_one_that_was_promised(world: World) -> None:
    promised = Fabric(world.fabric.vni + 1, 4789, world.fabric.nodes)
    matrix = run(world, fabric=promised)
    found = wrong(matrix)
    assert set(found) == labels(matrix, is_tunnelled)
    for result in found.values():
        assert (result.seen.request, result.seen.reply) == (Path.MIXED, Path.MIXED)
        assert "VNI 4 port 8472 instead of 5 port 4789" in result.seen.detail
