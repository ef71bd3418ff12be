"""What every benchmark prints: a table for people, a list for machines, both from the same results.

A result compares two measurements of one run, so the machine's speed and load cancel; only the ratio is meant to
be kept. ``better`` says which way the ratio has to go: with ``lower`` the target is its upper bound, else its
lower one.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Better(StrEnum):
    """Which of two values wins."""

    LOWER = "lower"
    HIGHER = "higher"


class Result(Struct, frozen=True, kw_only=True):
    """One line of a benchmark; the unit is part of the name."""

    name: str
    ours: float
    baseline: float
    ratio: float
    target: float
    better: Better

    @property
    def is_met(self) -> bool:
        """Whether the ratio is at the target or on its good side."""
        if self.better is Better.LOWER:
            return self.ratio <= self.target
        return self.ratio >= self.target


def compare(name: str, ours: float, baseline: float, target: float, better: Better) -> Result:
    """A result, its values to four and its ratio to three significant digits. ValueError without a baseline."""
    if baseline <= 0:
        raise ValueError(f"{name}: a baseline of {baseline:g} cannot be compared with")
    return Result(
        name=name,
        ours=round_to(ours, 4),
        baseline=round_to(baseline, 4),
        ratio=round_to(ours / baseline, 3),
        target=target,
        better=better,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that *percent* of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with ``--json``; *description* is the benchmark's docstring."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", action="store_true", help="print a list of results instead of a table")
    return options


def note(text: str) -> None:
    """Tell on stderr how far a benchmark is."""
    print(f"== {text}", file=sys.stderr, flush=True)


def publish(title: str, results: Iterable[Result], *, as_json: bool) -> None:
    """Write all results to stdout."""
    listed = list(results)
    if as_json:
        sys.stdout.write(to_json(listed).decode() + "\n")
        return
    Console(width=None if sys.stdout.isatty() else 120).print(to_table(title, listed))


def to_json(results: Sequence[Result]) -> bytes:
    """The list that machines read."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1)


def to_table(title: str, results: Sequence[Result]) -> Table:
    """The table that people read."""
    table = Table(title=title, title_justify="left")
    table.add_column("measured")
    for heading in ("ours", "baseline", "ratio", "target"):
        table.add_column(heading, justify="right")
    table.add_column("met")
    for result in results:
        sign = "<=" if result.better is Better.LOWER else ">="
        table.add_row(
            escape(result.name),
            f"{result.ours:,g}",
            f"{result.baseline:,g}",
            f"{result.ratio:.3g}",
            f"{sign} {result.target:g}",
            "[green]yes[/]" if result.is_met else "[red]no[/]",
        )
    return table


def round_to(value: float, digits: int) -> float:
    """*value* to that many significant digits."""
    return float(f"{value:.{digits}g}")
