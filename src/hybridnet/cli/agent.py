"""``hybridnet agent``: the node process."""

from pathlib import Path
from typing import Annotated

import typer


def agent(
    node_name: Annotated[str, typer.Option(envvar="KUBE_NODE_NAME", help="Name of this node's Node object.")],
    nic: Annotated[
        str, typer.Option(help="Device of underlay frames and tunnels; empty: that of the default route.")
    ] = "",
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Kubeconfig; default: $KUBECONFIG, in-cluster, ~/.kube/config.")
    ] = None,
    socket: Annotated[Path, typer.Option(help="Unix socket of the CNI executable.")] = Path(
        "/run/hybridnet/agent.sock"
    ),
    state_dir: Annotated[Path, typer.Option(help="Records of pod interfaces; a tmpfs.")] = Path(
        "/run/hybridnet/sandboxes"
    ),
    address_timeout: Annotated[
        float,
        typer.Option(
            min=0, max=25, help="Seconds that ADD waits for the cluster's state, and for the pod's addresses."
        ),
    ] = 20.0,
) -> None:
    """Answer CNI calls and program this node until SIGTERM. Stopping removes nothing."""
    from hybridnet.agent.app import Config, run  # noqa: PLC0415  (help must not wait for aiohttp)
    from hybridnet.cli.logs import configure_logging  # noqa: PLC0415
    from hybridnet.kernel.errors import KernelError  # noqa: PLC0415
    from hybridnet.kube.errors import ConfigError  # noqa: PLC0415

    configure_logging()
    config = Config(
        node=node_name,
        nic=nic,
        kubeconfig=kubeconfig,
        socket=socket,
        state=state_dir,
        address_timeout=address_timeout,
    )
    try:
        run(config)
    except (ConfigError, KernelError, OSError) as error:
        typer.echo(f"hybridnet agent: {error}", err=True)
        raise typer.Exit(1) from None
