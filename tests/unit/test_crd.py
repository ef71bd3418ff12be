"""The CRDs on disk are those of the typed objects, and keep the promises that a schema alone can show."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hybridnet.cli.main import app
from hybridnet.model import crd

FOLDER = Path(__file__).parents[2] / "deploy" / "crds"


def test_the_generated_files_are_current() -> None:
    on_disk = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert on_disk == crd.files(), "run: hybridnet crds --output deploy/crds"


def test_the_command_writes_the_same_files(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["crds", "--output", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == crd.files()


def test_the_command_prints_all_of_them() -> None:
    printed = CliRunner().invoke(app, ["crds"]).stdout
    assert list(yaml.safe_load_all(printed)) == crd.manifests()


def walk(schema: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    return [schema, *(found for each in inner for found in walk(each))]


@pytest.mark.parametrize("manifest", crd.manifests(), ids=lambda m: m["spec"]["names"]["kind"])
def test_every_part_of_a_schema_is_structural(manifest: dict[str, Any]) -> None:
    schema = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in walk(schema):
        assert part["type"] in {"object", "array", "string", "integer", "boolean"}
        assert not part.keys() & {"$ref", "anyOf", "allOf", "oneOf", "default", "title"}


@pytest.mark.parametrize("manifest", crd.manifests(), ids=lambda m: m["spec"]["names"]["kind"])
def test_every_field_is_explained(manifest: dict[str, Any]) -> None:
    schema = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in ("spec", "status"):
        for part in walk(schema["properties"].get(name, {"properties": {}})):
            for field, inner in part.get("properties", {}).items():
                assert inner.get("description"), field
