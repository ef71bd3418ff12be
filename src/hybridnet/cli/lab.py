"""``hybridnet lab``: a whole Kubernetes cluster on this machine, one command per step.

Needs root and Linux. Results go to stdout, progress to stderr; an error is one line on stderr with the next step.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridnet.lab.state import NetworkPlugin, ProxyMode

if TYPE_CHECKING:
    from hybridnet.lab.cluster import Cluster

app = typer.Typer(
    help="A real Kubernetes cluster in network namespaces of this machine.", no_args_is_help=True
)

Name = Annotated[
    str, typer.Option("--name", envvar="HYBRIDNET_LAB", help="Which lab; several can be up at once.")
]


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Tell errors of the lab in one line and exit with 1."""
    from hybridnet.kernel.errors import KernelError  # noqa: PLC0415  (help must not wait)
    from hybridnet.lab.errors import LabError  # noqa: PLC0415

    if os.geteuid() != 0:
        typer.echo("the lab makes network namespaces and mounts: run it as root", err=True)
        raise typer.Exit(1)
    try:
        yield
    except (LabError, KernelError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def setup(
    only: Annotated[str, typer.Argument(help="'api': what tests of the API need; 'all'.")] = "all",
) -> None:
    """Build what is missing: the programs of Kubernetes, the CNI executable."""
    from hybridnet.cli.progress import StepDisplay  # noqa: PLC0415
    from hybridnet.lab import binaries, build, plugin  # noqa: PLC0415

    with reporting(), StepDisplay() as display:
        build.build_missing(binaries.API if only == "api" else binaries.ALL, display)
        if only == "all":
            plugin.cni_executable()


@app.command()
def up(
    name: Name = "default",
    nodes: Annotated[int, typer.Option(min=1, max=200, help="Number of nodes.")] = 3,
    kube_proxy: Annotated[ProxyMode, typer.Option(help="How Services work.")] = ProxyMode.IPTABLES,
    network_plugin: Annotated[
        NetworkPlugin, typer.Option(help="bridge is the reference plugin, for comparison.")
    ] = NetworkPlugin.HYBRIDNET,
) -> None:
    """Bring a cluster up and print how to use it."""
    from hybridnet.cli.progress import StepDisplay  # noqa: PLC0415
    from hybridnet.lab import cluster, state  # noqa: PLC0415
    from hybridnet.lab.errors import LabError, LabExists  # noqa: PLC0415

    with reporting():
        try:
            with StepDisplay() as display:
                lab = cluster.up(
                    name, display, nodes=nodes, kube_proxy=kube_proxy, network_plugin=network_plugin
                )
        except LabError as error:
            if not isinstance(error, LabExists) and state.folder_of(name).exists():
                typer.echo(
                    f"lab {name!r} is half made: 'lab logs' tells more, 'lab down' removes it", err=True
                )
            raise
        typer.echo(f"lab {name!r} is up after {display.seconds:.1f} s", err=True)
        _print_usage(lab)


@app.command()
def down(name: Name = "default") -> None:
    """Remove a cluster and everything it left, also after a crash."""
    from hybridnet.lab import cluster  # noqa: PLC0415

    with reporting():
        cluster.down(name)
        typer.echo(f"lab {name!r} is gone", err=True)


@app.command()
def status(name: Name = "default") -> None:
    """Show nodes, networks and processes."""
    with reporting():
        lab = _find(name)
        from hybridnet.lab import status as lab_status  # noqa: PLC0415

        typer.echo(lab_status.describe(lab))


@app.command()
def pods(name: Name = "default") -> None:
    """List all pods with their addresses and nodes."""
    with reporting():
        typer.echo(_find(name).kubectl("get", "pods", "--all-namespaces", "--output=wide"), nl=False)


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    where: Annotated[str, typer.Argument(help="A pod, node1.., router, external, cp or switch.")],
    command: Annotated[list[str], typer.Argument(help="Command and its arguments, after '--'.")],
    name: Name = "default",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of a pod.")] = "default",
) -> None:
    """Run a command in a pod, on a node, on the router or on the external host."""
    with reporting():
        lab = _find(name)
        if where in lab.topology.node_names:
            wrapped = lab.node(where).shell.wrap(command)
        elif where in lab.topology.roles:
            from hybridnet.lab.processes import Place  # noqa: PLC0415

            wrapped = Place(network=lab.topology.namespace_path(where)).wrap(command)
        else:
            terminal = ["--tty"] if sys.stdin.isatty() else []
            kubectl = _kubectl(lab)
            wrapped = [
                *kubectl,
                "exec",
                "--stdin",
                *terminal,
                f"--namespace={namespace}",
                where,
                "--",
                *command,
            ]
        raise typer.Exit(subprocess.run(wrapped, check=False).returncode)


@app.command()
def logs(
    process: Annotated[str, typer.Argument(help="For example manager, node1/agent; empty: list them.")] = "",
    name: Name = "default",
    lines: Annotated[int, typer.Option("--lines", "-l", help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """Show the log of a process of the lab."""
    with reporting():
        files = _log_files(name)
        if process not in files:
            typer.echo("\n".join(files) or "no logs", err=bool(process))
            raise typer.Exit(1 if process else 0)
        command = ["tail", f"--lines={lines}", *(["--follow"] if follow else []), str(files[process])]
        with contextlib.suppress(KeyboardInterrupt):
            raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def kubectl(
    arguments: Annotated[list[str], typer.Argument(help="Arguments of kubectl.")], name: Name = "default"
) -> None:
    """Run kubectl against the lab."""
    with reporting():
        raise typer.Exit(subprocess.run([*_kubectl(_find(name)), *arguments], check=False).returncode)


def _find(name: str) -> "Cluster":
    from hybridnet.lab import cluster  # noqa: PLC0415

    return cluster.find(name)


def _kubectl(lab: "Cluster") -> list[str]:
    return [lab.binaries["kubectl"], f"--kubeconfig={lab.kubeconfig}"]


def _log_files(name: str) -> dict[str, Path]:
    """Also of a lab that did not come up."""
    from hybridnet.lab import state  # noqa: PLC0415

    return state.log_files(state.load(name).folder)


def _print_usage(lab: "Cluster") -> None:
    kubectl_path = Path(lab.binaries["kubectl"]).parent
    typer.echo(f"export KUBECONFIG={lab.kubeconfig}")
    typer.echo(f"export PATH=$PATH:{kubectl_path}   # kubectl")
