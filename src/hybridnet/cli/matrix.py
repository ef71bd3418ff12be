"""``hybridnet lab matrix`` and ``hybridnet lab demo``: the proof that everybody reaches everybody as promised."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hybridnet.lab.cluster import Cluster

Name = Annotated[str, typer.Option(help="Name of the lab.")]
Json = Annotated[bool, typer.Option("--json", help="A JSON list with one object a cell.")]


Keep = Annotated[bool, typer.Option("--keep", help="Leave the pods, to be looked at.")]


def matrix(name: Name = "default", json: Json = False, keep: Keep = False) -> None:
    """Probe every cell of the access matrix and compare it with what it must show."""
    from hybridnet.cli.lab import reporting  # noqa: PLC0415  (help must not wait)
    from hybridnet.lab import cluster  # noqa: PLC0415

    with reporting():
        ok = _show(cluster.find(name), json=json, keep=keep)
    if not ok:
        raise typer.Exit(1)


def demo(
    name: Name = "demo",
    nodes: Annotated[int, typer.Option(min=2, help="Number of nodes.")] = 3,
    keep: Annotated[bool, typer.Option(help="Leave the cluster up.")] = False,
) -> None:
    """Bring a cluster up, prove its access matrix, take it down."""
    from hybridnet.cli.lab import reporting  # noqa: PLC0415  (help must not wait)
    from hybridnet.cli.progress import StepDisplay  # noqa: PLC0415
    from hybridnet.lab import cluster  # noqa: PLC0415
    from hybridnet.lab.errors import LabExists  # noqa: PLC0415

    began = time.monotonic()
    with reporting():
        try:
            with StepDisplay() as display:
                lab = cluster.up(name, display, nodes=nodes)
            ok = _show(lab, json=False, keep=keep)
        except LabExists:
            keep = True  # somebody else's
            raise
        finally:
            if not keep:
                cluster.down(name)
    typer.echo(f"done in {time.monotonic() - began:.0f} s")
    if not ok:
        raise typer.Exit(1)


def _show(lab: "Cluster", *, json: bool, keep: bool) -> bool:
    from hybridnet.lab.matrix import cluster as matrices  # noqa: PLC0415  (help must not wait)
    from hybridnet.lab.matrix import report  # noqa: PLC0415

    began = time.monotonic()
    result = matrices.run_matrix(lab, _tell if sys.stderr.isatty() else lambda _: None, keep=keep)
    if json:
        sys.stdout.buffer.write(report.to_json(result) + b"\n")
    else:
        report.print_matrix(result)
        typer.echo(f"{len(result.results)} cells in {time.monotonic() - began:.0f} s")
    return result.ok


def _tell(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
