"""What a cell must show, what is made of what was seen of it, and how that is told."""

import json
from ipaddress import ip_address

import pytest
from rich.console import Console

from hybridnet.lab.matrix.cells import (
    NO_ROUTE,
    ROUTE,
    Cell,
    Endpoint,
    Expectation,
    Kind,
    Path,
    Protocol,
    Source,
    expect,
)
from hybridnet.lab.matrix.frames import Sighting, Tunnel
from hybridnet.lab.matrix.judge import TOO_SMALL, Fabric, judge, where_to_look
from hybridnet.lab.matrix.report import render, to_json
from hybridnet.lab.matrix.run import MatrixResult, Service, plan_cells
from hybridnet.model.address import Family

NODES = {"node1": ("10.1.0.11", "fd01::11"), "node2": ("10.1.0.12", "fd01::12")}
FABRIC = Fabric(4, 8472, {name: tuple(map(ip_address, each)) for name, each in NODES.items()})
RIGHT = Tunnel(ip_address("10.1.0.11"), ip_address("10.1.0.12"), 8472, 4)
BACK = Tunnel(RIGHT.destination, RIGHT.source, 8472, 4)


def endpoint(kind: Kind, node: str, host: int) -> Endpoint:
    net = {Kind.OVERLAY: 3, Kind.UNDERLAY: 2, Kind.NODE: 1, Kind.EXTERNAL: 4}[kind]
    addresses = (ip_address(f"10.{net}.0.{host}"), ip_address(f"fd0{net}::{host}"))
    mtu = 1450 if kind is Kind.OVERLAY else 1500
    return Endpoint(f"{kind}-{host}", kind, node, "/nowhere", addresses, mtu)


ENDPOINTS = [
    endpoint(Kind.OVERLAY, "node1", 21),
    endpoint(Kind.OVERLAY, "node1", 22),
    endpoint(Kind.OVERLAY, "node2", 23),
    endpoint(Kind.UNDERLAY, "node1", 21),
    endpoint(Kind.UNDERLAY, "node1", 22),
    endpoint(Kind.UNDERLAY, "node2", 23),
    endpoint(Kind.NODE, "node1", 11),
    endpoint(Kind.NODE, "node2", 12),
    endpoint(Kind.EXTERNAL, "", 2),
]
SERVICE = Service((ip_address("10.96.0.1"), ip_address("fd96::1")), ENDPOINTS[2])


def cell(
    sender: str, receiver: str, family: Family = Family.V4, protocol: Protocol = Protocol.UDP, note: str = ""
) -> Cell:
    by_name = {each.name: each for each in ENDPOINTS}
    return Cell(by_name[sender], by_name[receiver], family, protocol, note)


def frame(source: str, destination: str, tunnel: Tunnel | None = None, *, reply: bool = False) -> Sighting:
    return Sighting(1, reply, tunnel, ip_address(source), ip_address(destination))


@pytest.mark.parametrize(
    ("sender", "receiver", "path"),
    [
        pytest.param("overlay-21", "overlay-22", Path.DIRECT, marks=pytest.mark.spec("T23")),
        pytest.param("overlay-21", "overlay-23", Path.VXLAN, marks=pytest.mark.spec("T24")),
        pytest.param("overlay-21", "underlay-21", Path.DIRECT, marks=pytest.mark.spec("T25")),
        pytest.param("underlay-21", "overlay-21", Path.DIRECT, marks=pytest.mark.spec("T25")),
        pytest.param("overlay-21", "underlay-23", Path.VXLAN, marks=pytest.mark.spec("T26")),
        pytest.param("underlay-21", "overlay-23", Path.VXLAN, marks=pytest.mark.spec("T26")),
        pytest.param("underlay-21", "underlay-22", Path.DIRECT, marks=pytest.mark.spec("T29")),
        pytest.param("underlay-21", "underlay-23", Path.NATIVE, marks=pytest.mark.spec("T29")),
        pytest.param("node-11", "overlay-21", Path.DIRECT, marks=pytest.mark.spec("T33")),
        pytest.param("node-11", "overlay-23", Path.VXLAN, marks=pytest.mark.spec("T33")),
        pytest.param("node-11", "underlay-21", Path.DIRECT, marks=pytest.mark.spec("T34")),
        pytest.param("node-11", "underlay-23", Path.NATIVE, marks=pytest.mark.spec("T34")),
        pytest.param("overlay-21", "node-11", Path.DIRECT, marks=pytest.mark.spec("T35")),
        pytest.param("underlay-21", "node-11", Path.DIRECT, marks=pytest.mark.spec("T35")),
        pytest.param("underlay-21", "node-12", Path.NATIVE, marks=pytest.mark.spec("T38")),
        pytest.param("external-2", "underlay-21", Path.NATIVE, marks=pytest.mark.spec("T39")),
        pytest.param("underlay-21", "external-2", Path.NATIVE, marks=pytest.mark.spec("T40")),
        ("node-11", "node-12", Path.NATIVE),
        ("node-11", "external-2", Path.NATIVE),
        ("external-2", "node-11", Path.NATIVE),
    ],
)
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("protocol", Protocol)
def test_the_expected_table(
    sender: str, receiver: str, path: Path, family: Family, protocol: Protocol
) -> None:
    expected = expect(cell(sender, receiver, family, protocol))
    assert expected == Expectation(reached=True, source=Source.SENDER, request=path, reply=path)


@pytest.mark.spec("T36", "T41")
@pytest.mark.parametrize("receiver", ["node-12", "external-2"])
def test_overlay_pods_are_masqueraded_towards_whatever_is_no_pod(receiver: str) -> None:
    expected = expect(cell("overlay-21", receiver))
    assert expected == Expectation(True, Source.NODE, Path.MASQUERADED, Path.NATIVE)


@pytest.mark.spec("T42")
def test_the_outside_reaches_overlay_pods_only_with_a_route() -> None:
    assert not expect(cell("external-2", "overlay-21", note=NO_ROUTE)).reached
    with_route = expect(cell("external-2", "overlay-21", note=ROUTE))
    assert with_route == Expectation(True, Source.SENDER, Path.NATIVE, Path.NATIVE)


def test_every_pair_is_asked_in_every_family_and_protocol_and_by_service() -> None:
    cells = plan_cells(ENDPOINTS, [SERVICE])
    assert len(set(cells)) == len(cells)
    plain = [c for c in cells if not c.note]
    pairs = {(c.sender.name, c.receiver.name) for c in cells}
    assert len(pairs) == len(ENDPOINTS) * (len(ENDPOINTS) - 1)
    assert len(plain) == (len(pairs) - 3) * 6
    for note in (NO_ROUTE, ROUTE):
        unknown = [c for c in cells if c.note == note]
        assert len(unknown) == 3 * 6
        assert {(c.sender.kind, c.receiver.kind) for c in unknown} == {(Kind.EXTERNAL, Kind.OVERLAY)}
    served = [c for c in cells if c.service is not None]
    assert {c.sender.name for c in served} == {
        e.name for e in ENDPOINTS if e.kind in (Kind.OVERLAY, Kind.UNDERLAY)
    } - {"overlay-23"}
    assert {c.protocol for c in served} == {Protocol.TCP, Protocol.UDP}
    assert all(c.target in SERVICE.addresses for c in served)


@pytest.mark.spec("T44")
def test_a_family_that_one_end_does_not_have_is_not_asked() -> None:
    only_v4 = Endpoint("overlay-24", Kind.OVERLAY, "node1", "/nowhere", (ip_address("10.3.0.24"),), 1450)
    cells = plan_cells([only_v4, ENDPOINTS[2]], [])
    assert {c.family for c in cells} == {Family.V4}


def test_a_probe_fills_the_smaller_of_both_ends() -> None:
    assert cell("underlay-21", "overlay-23").mtu == 1450
    assert cell("underlay-21", "underlay-23").mtu == 1500


@pytest.mark.spec("T24")
def test_a_tunnelled_cell_is_right_when_both_directions_are() -> None:
    frames = [
        frame("10.3.0.21", "10.3.0.23", RIGHT),
        frame("10.3.0.23", "10.3.0.21", BACK, reply=True),
    ]
    result = judge(cell("overlay-21", "overlay-23"), "", "10.3.0.21", frames, FABRIC)
    assert result.ok
    assert (result.seen.request, result.seen.reply, result.seen.detail) == (Path.VXLAN, Path.VXLAN, "")
    other_source = judge(cell("overlay-21", "overlay-23"), "", "10.1.0.11", frames, FABRIC)
    assert not other_source.ok
    assert where_to_look(other_source).startswith("on node1: nft list chain inet hybridnet nat")


@pytest.mark.parametrize(
    ("frames", "path", "told"),
    [
        ([], Path.DIRECT, ""),
        ([frame("10.3.0.21", "10.3.0.23")], Path.NATIVE, ""),
        ([frame("10.3.0.21", "10.3.0.23", RIGHT)], Path.VXLAN, ""),
        (
            [frame("10.3.0.21", "10.3.0.23", RIGHT), frame("10.3.0.21", "10.3.0.23")],
            Path.MIXED,
            "both inside and outside",
        ),
        (
            [frame("10.3.0.21", "10.3.0.23", BACK)],
            Path.MIXED,
            "10.1.0.12 → 10.1.0.11, not from node1 to node2",
        ),
        (
            [frame("10.3.0.21", "10.3.0.23", Tunnel(RIGHT.source, RIGHT.destination, 4789, 4))],
            Path.MIXED,
            "VNI 4 port 4789 instead of 4 port 8472",
        ),
        (
            [Sighting(1, False, RIGHT, ip_address("10.3.0.21"), ip_address("10.3.0.23"), fragment=True)],
            Path.MIXED,
            "fragments",
        ),
    ],
)
def test_the_path_is_what_the_frames_say(frames: list[Sighting], path: Path, told: str) -> None:
    result = judge(cell("overlay-21", "overlay-23"), "", "10.3.0.21", frames, FABRIC)
    assert result.seen.request is path
    assert told in result.seen.detail
    assert not result.ok  # no reply was seen in the tunnel


@pytest.mark.spec("T36")
def test_native_frames_with_the_address_of_the_node_are_masqueraded() -> None:
    frames = [frame("10.1.0.11", "10.1.0.12"), frame("10.1.0.12", "10.1.0.11", reply=True)]
    result = judge(cell("overlay-21", "node-12"), "", "10.1.0.11", frames, FABRIC)
    assert result.ok
    assert (result.seen.request, result.seen.reply) == (Path.MASQUERADED, Path.NATIVE)
    leaked = judge(cell("overlay-21", "node-12"), "", "10.3.0.21", frames, FABRIC)
    assert not leaked.ok
    assert leaked.seen.request is Path.NATIVE


def test_a_node_that_speaks_natively_is_not_masqueraded() -> None:
    result = judge(cell("node-11", "node-12"), "", "10.1.0.11", [frame("10.1.0.11", "10.1.0.12")], FABRIC)
    assert result.seen.request is Path.NATIVE


@pytest.mark.parametrize(
    ("protocol", "source", "frames", "told"),
    [
        (Protocol.UDP, "", [], "nothing came out of the tunnel: on node1"),
        (Protocol.UDP, "", [frame("10.3.0.21", "10.3.0.23")], "it left beside the tunnel: on node1"),
        (
            Protocol.UDP,
            "",
            [frame("10.3.0.21", "10.3.0.23", BACK)],
            "the tunnel is wrong: on node1: bridge fdb",
        ),
        (Protocol.UDP, "", [frame("10.3.0.21", "10.3.0.23", RIGHT)], "the tunnel is right: on node2"),
        (
            Protocol.UDP,
            "10.3.0.21",
            [frame("10.3.0.21", "10.3.0.23", RIGHT)],
            "nothing came out of the tunnel: on node2",
        ),
        (Protocol.TCP, "", [], "nothing came out of the tunnel: on node2"),
    ],
)
def test_what_is_lost_is_told_with_the_node_and_what_to_look_at(
    protocol: Protocol, source: str, frames: list[Sighting], told: str
) -> None:
    lost = judge(cell("overlay-21", "overlay-23", protocol=protocol), "no answer", source, frames, FABRIC)
    assert not lost.ok
    assert told in where_to_look(lost)


def test_a_path_that_is_too_small_is_told_as_such() -> None:
    error = f"{TOO_SMALL} 1400 bytes, not 1450"
    result = judge(cell("overlay-21", "overlay-23"), error, "", [], FABRIC)
    assert "which device has a smaller MTU" in where_to_look(result)


def test_a_receiver_that_is_reached_but_must_not_be_is_wrong() -> None:
    result = judge(cell("external-2", "overlay-21", note=NO_ROUTE), "", "10.4.0.2", [], FABRIC)
    assert not result.ok
    assert "the router's routes" in where_to_look(result)


def matrix(*, broken: bool = False, dropped: int = 0) -> MatrixResult:
    """A matrix in which all is as expected, or one cell is not."""
    results = []
    for each in (c for c in plan_cells(ENDPOINTS, [SERVICE]) if c.note != ROUTE):
        expected = expect(each)
        source = "10.9.9.9"
        if expected.reached:
            source = next(
                str(a)
                for a in (
                    each.sender.addresses
                    if expected.source is Source.SENDER
                    else FABRIC.nodes[each.sender.node]
                )
                if a.version == each.family
            )
        frames = [*_frames(each, expected.request, reply=False), *_frames(each, expected.reply, reply=True)]
        results.append(
            judge(
                each,
                "" if expected.reached else "unreachable",
                source if expected.reached else "",
                frames,
                FABRIC,
            )
        )
    if broken:
        lost = cell("overlay-21", "overlay-23", protocol=Protocol.ICMP)
        results = [r if r.cell != lost else judge(lost, "no answer", "", [], FABRIC) for r in results]
    return MatrixResult(tuple(results), dropped)


def _frames(each: Cell, path: Path, *, reply: bool) -> list[Sighting]:
    if path in (Path.DIRECT, Path.NONE):
        return []
    forth = (each.sender.node == "node1") != reply
    tunnel = (RIGHT if forth else BACK) if path is Path.VXLAN else None
    return [Sighting(1, reply, tunnel, each.sender.address(each.family), each.receiver.address(each.family))]


def shown(result: MatrixResult) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(result))
    return console.export_text()


def test_a_sound_matrix_is_shown_in_a_hundred_columns() -> None:
    sound = matrix()
    assert sound.ok
    text = shown(sound)
    assert "✗" not in text
    assert "…" not in text
    assert f"{len(sound.results)} of {len(sound.results)} cells as expected" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_broken_cell_is_shown_in_its_square_and_told_below() -> None:
    broken = matrix(broken=True)
    assert not broken.ok
    text = shown(broken)
    assert "✗ 1/4" in text
    assert "✗ expected vxlan/vxlan, seen not reached (no answer)" in text
    assert "overlay-21 → overlay-23 at 10.3.0.23 (other node): ICMP" in text
    assert f"{len(broken.results) - 1} of {len(broken.results)} cells" in text


def test_captures_that_lost_frames_prove_nothing() -> None:
    lossy = matrix(dropped=3)
    assert not lossy.ok
    assert "INCONCLUSIVE: the capture lost 3 frames" in shown(lossy)


def test_programs_read_every_cell_as_json() -> None:
    cells = json.loads(to_json(matrix(broken=True)))
    assert len(cells) == len(matrix().results)
    wrong = [each for each in cells if not each["ok"]]
    assert len(wrong) == 1
    assert (wrong[0]["sender"], wrong[0]["receiver"]) == ("overlay-21", "overlay-23")
    assert (wrong[0]["family"], wrong[0]["protocol"], wrong[0]["reached"]) == ("v4", "ICMP", False)
    assert wrong[0]["expected"]["request"] == "vxlan"
    assert "node1" in wrong[0]["next"]
