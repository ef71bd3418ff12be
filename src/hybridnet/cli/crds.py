"""``hybridnet crds``: the CustomResourceDefinitions as YAML."""

import sys


def crds() -> None:
    """Print the CustomResourceDefinitions, ready for ``kubectl apply --server-side -f -``."""
    from hybridnet.model.crd import to_yaml  # noqa: PLC0415  (only this command needs YAML)

    sys.stdout.write(to_yaml())
