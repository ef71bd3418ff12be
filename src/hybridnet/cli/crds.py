"""``hybridnet crds``: the CustomResourceDefinitions as YAML."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def crds(
    output: Annotated[
        Path | None, typer.Option(help="Write one file for each kind into this folder instead.")
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions, ready for ``kubectl apply --server-side -f -``."""
    from hybridnet.model import crd  # noqa: PLC0415  (only this command needs YAML)

    if output is None:
        sys.stdout.write(crd.to_yaml())
        return
    for path in crd.write(output):
        sys.stdout.write(f"{path}\n")
