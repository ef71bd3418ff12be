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
        "placement": cell.row[1],
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
    parts += [_mismatch(r) for r in bad]
    total = len(matrix.results)
    if matrix.dropped:
        parts.append(
            Text(f"INCONCLUSIVE: the capture lost {matrix.dropped} frames; run it again", "bold red")
        )
    style, word = ("bold green", "as expected") if not bad else ("bold red", "as expected, the others above")
    parts.append(Text(f"{total - len(bad)} of {total} cells {word}", style))
    return Group(*parts)


def _table(results: Iterable[Result]) -> Table:
    title = "Access matrix, full MTU: path on the wire (request/reply when they differ)"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
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
    share = f" {len(bad)}/{len(results)}" if len(bad) < len(results) else ""
    return Text(f"✗{share} " + " ".join(sorted({_path(r) for r in bad})), "bold red")


def _path(result: Result) -> str:
    seen = result.seen
    if not seen.reached:
        return "closed" if result.ok else "lost"
    request, reply = (_SHORT.get(p, str(p)) for p in (seen.request, seen.reply))
    usual = request == reply or (request == "masq" and reply == "native")
    return request if usual else f"{request}/{reply}"


def _mismatch(result: Result) -> Text:
    cell, expected, seen = result.cell, result.expected, result.seen
    who, where = cell.row
    wanted = f"{expected.request}/{expected.reply}" if expected.reached else "not reached"
    got = f"{seen.request}/{seen.reply} from {seen.source or '?'}" if seen.reached else "not reached"
    text = f"✗ {who} ({where}) v{cell.family} {cell.protocol}: {cell.sender.name} → {cell.target}: "
    text += f"expected {wanted}, seen {got}"
    text += f" ({seen.detail})" if seen.detail else ""
    return Text(f"{text}\n    {where_to_look(result)}", "red")


def print_matrix(matrix: MatrixResult) -> None:
    """Print for people, at least 120 columns wide so that a table in a log is not folded."""
    console = Console()
    console.width = max(console.width, 120)
    console.print(render(matrix))
