"""The matrix for people (a table and what to do about mismatches) and for programs (JSON)."""

from collections.abc import Iterable

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hybridnet.lab.matrix.cells import Path, Protocol, Result
from hybridnet.lab.matrix.judge import where_to_look
from hybridnet.lab.matrix.run import MatrixResult
from hybridnet.model.address import Family

_SHORT = {Path.MASQUERADED: "masq", Path.NONE: "-"}


def to_json(matrix: MatrixResult) -> bytes:
    """A JSON list with one object a cell."""
    return msgspec.json.format(msgspec.json.encode([_cell(r) for r in matrix.results]), indent=2)


def _cell(result: Result) -> dict[str, object]:
    cell, expected, seen = result.cell, result.expected, result.seen
    return {
        "from": cell.sender.kind,
        "to": cell.receiver.kind,
        "sender": cell.sender.name,
        "receiver": cell.receiver.name,
        "target": str(cell.target),
        "placement": cell.place,
        "via": cell.note,
        "family": f"v{cell.family}",
        "protocol": cell.protocol,
        "reached": seen.reached,
        "source": seen.source,
        "request": seen.request,
        "reply": seen.reply,
        "expected": {
            "reached": expected.reached,
            "source": list(result.sources) if expected.reached else [],
            "request": expected.request,
            "reply": expected.reply,
        },
        "ok": result.ok,
        "detail": seen.detail,
        "next": "" if result.ok else where_to_look(result),
    }


def render(matrix: MatrixResult) -> RenderableType:
    """The table, the mismatches, one line of summary."""
    bad = [r for r in matrix.results if not r.ok]
    parts: list[RenderableType] = [_table(matrix.results), Text("")]
    parts += _mismatches(bad)
    total = len(matrix.results)
    if matrix.dropped:
        parts.append(
            Text(f"INCONCLUSIVE: the capture lost {matrix.dropped} frames; run it again", "bold red")
        )
    style, word = ("bold green", "as expected") if not bad else ("bold red", "as expected, the others above")
    parts.append(Text(f"{total - len(bad)} of {total} cells {word}", style))
    return Group(*parts)


def _table(results: Iterable[Result]) -> Table:
    title = "Access matrix: path on the wire of packets that fill the MTU (request/reply when they differ)"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ("from → to", "where", "source"):
        table.add_column(heading, no_wrap=True)
    columns = [(f, p) for f in Family for p in Protocol]
    for family, protocol in columns:
        table.add_column(f"v{family} {protocol}", justify="left", no_wrap=True)
    rows: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        rows.setdefault(result.cell.row, []).append(result)
    for (who, where), members in rows.items():
        marks = [
            _mark([r for r in members if (r.cell.family, r.cell.protocol) == column]) for column in columns
        ]
        table.add_row(who, where, _source(members), *marks)
    return table


def _source(results: list[Result]) -> str:
    """Whose addresses the receivers of a row saw."""
    seen = {r.seen.source in map(str, r.cell.sender.addresses) for r in results if r.seen.reached}
    return " and ".join("sender" if own else "node" for own in sorted(seen, reverse=True)) or "-"


def _mark(results: list[Result]) -> Text:
    """One square of the table: all pairs of endpoints that a row stands for."""
    bad = [r for r in results if not r.ok]
    if not results:
        return Text("")
    if not bad:
        return Text("✓ " + " ".join(sorted({_path(r) for r in results})), "green")
    paths = {_path(r) for r in bad}
    told = paths.pop() if len(bad) == len(results) and len(paths) == 1 else f"{len(bad)}/{len(results)}"
    return Text(f"✗ {told}", "bold red")


def _path(result: Result) -> str:
    seen = result.seen
    if not seen.reached:
        return "closed" if result.ok else "lost"
    request, reply = (_SHORT.get(p, str(p)) for p in (seen.request, seen.reply))
    usual = request == reply or (request == "masq" and reply == "native")
    return request if usual else f"{request}/{reply}"


def _mismatches(bad: Iterable[Result]) -> list[Text]:
    """A paragraph for each kind of fault: what was expected and seen, where to look, and which cells show it.

    A TCP handshake that fails has left no mark on the wire; ICMP or UDP between the same ends, when they failed
    too, tell more of it.
    """
    faults: dict[str, dict[str, list[str]]] = {}
    fault_of: dict[str, str] = {}
    for result in sorted(bad, key=lambda r: r.cell.protocol is Protocol.TCP):
        ends = _ends(result)
        silent = result.cell.protocol is Protocol.TCP and not result.seen.source
        fault = fault_of[ends] if silent and ends in fault_of else _fault(result)
        fault_of.setdefault(ends, fault)
        faults.setdefault(fault, {}).setdefault(ends, []).append(result.cell.protocol)
    return [
        Text(
            "\n".join([fault, *(f"    {ends}: {' '.join(probes)}" for ends, probes in cells.items())]), "red"
        )
        for fault, cells in faults.items()
    ]


def _ends(result: Result) -> str:
    cell = result.cell
    return f"{cell.sender.name} → {cell.receiver.name} at {cell.target} ({cell.place})"


def _fault(result: Result) -> str:
    expected, seen = result.expected, result.seen
    wanted = f"{expected.request}/{expected.reply}" if expected.reached else "not reached"
    got = f"{seen.request}/{seen.reply} from {seen.source or '?'}" if seen.reached else "not reached"
    got += f" ({seen.detail})" if seen.detail else ""
    return f"✗ expected {wanted}, seen {got}\n  {where_to_look(result)}"


def print_matrix(matrix: MatrixResult) -> None:
    """Print for people, at least 100 columns wide so that a table in a log is not folded."""
    console = Console()
    console.width = max(console.width, 100)
    console.print(render(matrix))
