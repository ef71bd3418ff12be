"""The command ``hybridnet`` (also ``kubectl hybridnet``): every process and tool of the project.

Commands are imported when they are called: ``--help`` and tab completion must not wait for aiohttp.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "agent": ("hybridnet.cli.agent", "The node process: answers CNI calls, programs the node."),
    "manager": ("hybridnet.cli.manager", "The controllers over addresses and topology."),
    "crds": ("hybridnet.cli.crds", "Print the CustomResourceDefinitions."),
    "lab": ("hybridnet.cli.lab", "A whole Kubernetes cluster in namespaces of this machine."),
}


class LazyGroup(TyperGroup):
    """A command group that imports a command's module when the command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of a table of contents."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported on demand."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(COMMANDS[cmd_name][0])
        return typer.main.get_command(module.app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands for ``--help``, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(cls=LazyGroup, name="hybridnet", rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def hybridnet() -> None:
    """Container network for hybrid clouds: underlay and overlay pods side by side."""


def main() -> None:
    """Entry point of the executables."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(141)
