"""The command ``hybridnet`` (also ``kubectl hybridnet``): every process and tool of the project.

The modules of the commands import what they need when they are called: ``--help`` and tab completion must not
wait for aiohttp.
"""

import sys

import typer

from hybridnet.cli import agent, crds, manager, matrix
from hybridnet.cli.lab import app as lab_app

app = typer.Typer(
    name="hybridnet",
    help="Container network for hybrid clouds: underlay and overlay pods side by side.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.command()(agent.agent)
app.command()(manager.manager)
app.command()(crds.crds)
lab_app.command()(matrix.matrix)
lab_app.command()(matrix.demo)
app.add_typer(lab_app, name="lab")


def main() -> None:
    """Entry point of the executables."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(141)
