"""The shape of what benchmarks print: machines read it, so it must not change by accident."""

import importlib.util
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from rich.console import Console


def load_report() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "report.py"
    spec = importlib.util.spec_from_file_location("bench_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


report = load_report()


def test_the_list_has_exactly_the_promised_fields() -> None:
    result = report.compare("ADD [ms]", 2.0, 8.0, 0.25, report.Better.LOWER)
    assert msgspec.json.decode(report.to_json([result])) == [
        {
            "name": "ADD [ms]",
            "ours": 2.0,
            "baseline": 8.0,
            "ratio": 0.25,
            "target": 0.25,
            "better": "lower",
        }
    ]


@pytest.mark.parametrize(
    ("ours", "better", "met"),
    [(97, "higher", False), (98, "higher", True), (98, "lower", True), (99, "lower", False)],
)
def test_a_target_bounds_the_ratio_from_the_side_that_is_worse(ours: float, better: str, met: bool) -> None:
    assert report.compare("x", ours, 100, 0.98, report.Better(better)).is_met is met


def test_a_ratio_is_taken_before_rounding() -> None:
    assert report.compare("x", 1.00049, 2.0001, 1, report.Better.LOWER).ratio == pytest.approx(0.5)


def test_a_baseline_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        report.compare("x", 1, 0, 1, report.Better.LOWER)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert report.percentile(values, 50) == 3.0
    assert report.percentile(values, 99) == 5.0
    assert report.percentile([7.0], 50) == 7.0


def test_the_table_names_what_missed_its_target() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(
            report.to_table("bench", [report.compare("slow [ms]", 9, 8, 1, report.Better.LOWER)]),
        )
    text = capture.get()
    assert "slow [ms]" in text
    assert "<= 1" in text
    assert " no " in text
