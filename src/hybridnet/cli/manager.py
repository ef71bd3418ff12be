"""``hybridnet manager``: the process that gives pods their addresses."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated

import typer


def manager(
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Kubeconfig; default: $KUBECONFIG, in-cluster, ~/.kube/config.")
    ] = None,
    namespace: Annotated[
        str, typer.Option(envvar="NAMESPACE", help="Namespace of the leader lease.")
    ] = "kube-system",
    identity: Annotated[
        str, typer.Option(help="Name of this process in the lease; default: host name and process id.")
    ] = "",
    default_network_type: Annotated[
        str, typer.Option(envvar="DEFAULT_NETWORK_TYPE", help="Underlay, Overlay or GlobalBGP.")
    ] = "Overlay",
    default_ip_family: Annotated[
        str, typer.Option(envvar="DEFAULT_IP_FAMILY", help="IPv4Only, IPv6Only or DualStack.")
    ] = "DualStack",
    leader_election: Annotated[
        bool, typer.Option(help="Run the controllers only while holding the lease.")
    ] = True,
) -> None:
    """Give addresses to pods and take them back: one manager leads, the others stand by."""
    from hybridnet.cli.logs import configure_logging  # noqa: PLC0415
    from hybridnet.manager.app import ConfigError, configure, run  # noqa: PLC0415  (help must not wait)

    configure_logging()
    try:
        config = configure(
            kubeconfig=kubeconfig,
            namespace=namespace,
            identity=identity or f"{socket.gethostname()}-{os.getpid()}",
            network_type=default_network_type,
            ip_family=default_ip_family,
            leader_election=leader_election,
        )
        asyncio.run(run(config))
    except ConfigError as error:
        typer.echo(f"hybridnet manager: {error}", err=True)
        raise typer.Exit(2) from None
