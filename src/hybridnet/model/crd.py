"""The CustomResourceDefinitions, made of the typed objects, so that schema and code cannot differ.

Printer columns, their order and their raw values are the original's; the columns of ``-o wide``, short names and
the category ``hybridnet`` are additions. ``deploy/crds`` holds what :func:`write` writes; a test compares them.
"""

from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from hybridnet.model import resource
from hybridnet.model.resource import GROUP, Resource
from hybridnet.model.rules import RULES
from hybridnet.model.schema import schema_of

CATEGORY = "hybridnet"


class Column(Struct, frozen=True):
    """A column of ``kubectl get``. Priority 1 shows only with ``-o wide``."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The column as the CRD has it."""
        wide = {"priority": self.priority} if self.priority else {}
        return {"name": self.name, "type": self.type, "jsonPath": self.path} | wide


class Definition(Struct, frozen=True):
    """What a CRD has besides the schema."""

    resource: Resource[Any]
    short_name: str
    columns: tuple[Column, ...]
    has_status: bool = True


READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status', priority=1)
REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1)
AGE = Column("Age", ".metadata.creationTimestamp", "date", priority=1)


def _count(name: str, path: str) -> Column:
    return Column(name, path, "integer")


DEFINITIONS = (
    Definition(
        resource.NETWORKS,
        "hnet",
        (
            _count("NetID", ".spec.netID"),
            Column("Type", ".spec.type"),
            Column("Mode", ".spec.mode"),
            _count("V4Total", ".status.statistics.total"),
            _count("V4Used", ".status.statistics.used"),
            _count("V4Available", ".status.statistics.available"),
            Column("LastAllocatedV4Subnet", ".status.lastAllocatedSubnet"),
            _count("V6Total", ".status.ipv6Statistics.total"),
            _count("V6Used", ".status.ipv6Statistics.used"),
            _count("V6Available", ".status.ipv6Statistics.available"),
            Column("LastAllocatedV6Subnet", ".status.lastAllocatedIPv6Subnet"),
            READY,
            REASON,
            AGE,
        ),
    ),
    Definition(
        resource.SUBNETS,
        "hsub",
        (
            Column("Version", ".spec.range.version"),
            Column("CIDR", ".spec.range.cidr"),
            Column("Start", ".spec.range.start"),
            Column("End", ".spec.range.end"),
            Column("Gateway", ".spec.range.gateway"),
            _count("Total", ".status.total"),
            _count("Used", ".status.used"),
            _count("Available", ".status.available"),
            _count("NetID", ".spec.netID"),
            Column("Network", ".spec.network"),
            READY,
            REASON,
            AGE,
        ),
    ),
    Definition(
        resource.IPINSTANCES,
        "hip",
        (
            Column("IP", ".spec.address.ip"),
            Column("Gateway", ".spec.address.gateway"),
            Column("PodName", ".spec.binding.podName"),
            Column("Node", ".spec.binding.nodeName"),
            Column("Subnet", ".spec.subnet"),
            Column("Network", ".spec.network"),
            Column("MAC", ".spec.address.mac", priority=1),
            Column("Owner", ".spec.binding.referredObject.kind", priority=1),
            AGE,
        ),
    ),
    Definition(
        resource.NODEINFOS,
        "hni",
        (
            Column("VTEPIP", ".spec.vtepInfo.ip"),
            Column("VTEPMAC", ".spec.vtepInfo.mac"),
            Column("VTEPLOCALIPS", ".spec.vtepInfo.localIPs"),
            READY,
            REASON,
            AGE,
        ),
    ),
    Definition(resource.IPBLOCKS, "hblk", (Column("CIDR", ".spec.cidr"), AGE), has_status=False),
)


def manifests() -> list[dict[str, Any]]:
    """All CRDs, in the order of :data:`DEFINITIONS`."""
    return [_manifest(definition) for definition in DEFINITIONS]


def to_yaml() -> str:
    """All CRDs as one YAML stream."""
    return "".join(f"---\n{_dump(manifest)}" for manifest in manifests())


def files() -> dict[str, str]:
    """File name -> content of ``deploy/crds``."""
    return {f"{crd['spec']['names']['plural']}.yaml": _dump(crd) for crd in manifests()}


def write(folder: Path) -> list[Path]:
    """Write one file for each CRD and return their paths. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in files()]
    for path, text in zip(paths, files().values(), strict=True):
        path.write_text(text)
    return paths


def _manifest(definition: Definition) -> dict[str, Any]:
    kind = definition.resource
    version: dict[str, Any] = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema_of(kind.type, RULES)},
        "additionalPrinterColumns": [column.as_dict() for column in definition.columns],
    }
    if definition.has_status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Without anchors: the same value at two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002  (yaml's own signature)
        return True


def _dump(manifest: dict[str, Any]) -> str:
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=100)
