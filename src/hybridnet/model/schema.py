"""Structural OpenAPI v3 schemas (what a CRD carries) from the structs of this package.

One walk over ``msgspec.inspect``: references are inlined, ``X | None`` becomes X with ``nullable``, and the
descriptions are the fields' ``doc`` and the classes' docstrings. ``msgspec.json.schema`` was rejected: it writes
``$ref``, ``anyOf`` with null and ``default``, which the API server refuses or would write into objects.
"""

import inspect
from typing import Any

import msgspec.inspect as shape
from msgspec import UNSET

from hybridnet.model.meta import KubeObject

Schema = dict[str, Any]

SCALARS: dict[type[shape.Type], str] = {
    shape.IntType: "integer",
    shape.FloatType: "number",
    shape.StrType: "string",
    shape.BoolType: "boolean",
}


def schema_of(kind: type[KubeObject], rules: dict[type, list[Schema]]) -> Schema:
    """The schema of a kind; *rules* are the ``x-kubernetes-validations`` of the structs in it."""
    root = _object(_struct(kind), rules)
    fields = root["properties"]
    fields.pop("metadata")
    root["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **fields,
    }
    return root


def _struct(kind: type) -> shape.StructType:
    found = shape.type_info(kind)
    if not isinstance(found, shape.StructType):
        raise TypeError(f"{kind.__name__} is not a struct")
    return found


def _object(info: shape.StructType, rules: dict[type, list[Schema]]) -> Schema:
    """Schema of a struct."""
    properties = {field.encode_name: _schema(field.type, rules) for field in info.fields}
    schema: Schema = {
        "type": "object",
        "description": _first_paragraph(info.cls),
        "properties": properties,
    }
    if required := [field.encode_name for field in info.fields if field.required]:
        schema["required"] = required
    if validations := rules.get(info.cls):
        schema["x-kubernetes-validations"] = validations
    return schema


def _schema(info: shape.Type, rules: dict[type, list[Schema]]) -> Schema:
    """Schema of the type of a field."""
    extra: Schema = {}
    if isinstance(info, shape.Metadata):
        extra = {**(info.extra_json_schema or {})}
        info = info.type
    schema: Schema
    if isinstance(info, shape.UnionType):
        schema = {**_schema(_only(info), rules), "nullable": True}
    elif isinstance(info, shape.StructType):
        schema = _object(info, rules)
    elif isinstance(info, shape.DictType):
        schema = {"type": "object", "additionalProperties": _schema(info.value_type, rules)}
    elif isinstance(info, shape.VarTupleType | shape.ListType):
        schema = {"type": "array", "items": _schema(info.item_type, rules)}
    else:
        schema = {"type": SCALARS[type(info)]}
    return schema | _plain(extra)


def _only(union: shape.UnionType) -> shape.Type:
    """The X of ``X | None``."""
    members = [member for member in union.types if not isinstance(member, shape.NoneType)]
    if len(members) != 1:
        raise TypeError(f"a structural schema has no union of {members}")
    return members[0]


def _plain(extra: Schema) -> Schema:
    """Values as YAML writes them: enumerators become text."""
    return {
        key: [str(item) for item in value] if key == "enum" else value
        for key, value in extra.items()
        if value is not UNSET
    }


def _first_paragraph(cls: type) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())
