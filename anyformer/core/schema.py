"""JSON Schema of what is written: kinds and bare names, patterns as text, refs and repeats.

Every table is one definition that others link to, so that parts which hold each other need no special care.
"""

from __future__ import annotations

from typing import Any

from anyformer.core.overrides import default, roles
from anyformer.core.spec import Ref, Rows, Spec, adapter
from anyformer.core.tables import row, table


def schema(root: type[Spec]) -> dict[str, Any]:
    """The schema of a spec class, with a definition for every table that can be reached from it."""
    collected = _Collected()
    top = collected.of(root)
    while missing := collected.linked - collected.definitions.keys():
        package = min(missing)
        collected.definitions[package] = collected.table(package)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": collected.definitions}


class _Collected:
    """Definitions met so far, and the tables that something links to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self.linked: set[str] = set()

    def of(self, cls: type[Spec]) -> dict[str, Any]:
        """One class, as written without `kind`."""
        made = adapter(cls).json_schema()
        for name, definition in made.pop("$defs", {}).items():
            self.definitions[name] = self.linked_up(definition)
        return self._with_defaults(self.linked_up(made), cls)

    def table(self, package: str) -> dict[str, Any]:
        """All rows of a table: by bare name where nothing has to be said, and as a mapping with `kind`."""
        bare, full, broken = [], [], []
        for kind in table(package):
            try:
                cls = row(package, kind)
            except ValueError as error:  # somebody else's row; the others still have a schema
                broken.append(str(error))
                continue
            made = self.of(cls)
            required = made.get("required", [])
            if not required:
                bare.append(kind)
            made["properties"] = {"kind": {"const": kind}, **made.get("properties", {})}
            full.append({**made, "required": ["kind", *required]})
        note = {"description": "; ".join(broken)} if broken else {}
        return {"anyOf": [{"enum": bare}, *full] if bare else full, **note}

    def linked_up(self, node: Any) -> Any:
        """The marks that `Rows` leaves, as links; lists of parts may hold repeats."""
        if isinstance(node, list):
            return [self.linked_up(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "x-rows" in node:
            rest = {key: value for key, value in node.items() if key != "x-rows"}
            return {**self._part(node["x-rows"]), **rest}
        made = {key: self.linked_up(value) for key, value in node.items()}
        if "x-rows" in (node.get("items") or {}):
            made["items"] = {"anyOf": [made["items"], _repeat(made["items"])]}
        return made

    def _part(self, rows: dict[str, Any]) -> dict[str, Any]:
        self.linked |= {*rows["packages"]}
        text = [{"type": "string", "description": "such as causal & (sinks(4) | window(512))"}] if rows["text"] else []
        links = [{"$ref": f"#/$defs/{package}"} for package in rows["packages"]]
        if rows["default"] is not None:  # its keys, without `kind`
            links.append(self.of(Rows(*rows["packages"]).find(rows["default"])))
        return {"anyOf": [*text, *links, *([adapter(Ref).json_schema()] if rows["ref"] else [])]}

    def _with_defaults(self, made: dict[str, Any], cls: type[Spec]) -> dict[str, Any]:
        """Defaults as they would be written: pydantic's own would leave the kind of a part out."""
        for name in roles(cls):
            if "default" in made.get("properties", {}).get(name, {}):
                made["properties"][name]["default"] = default(cls, name)
        return made


def _repeat(item: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "repeat": {"type": "integer", "minimum": 1},
        "block": {"anyOf": [item, {"type": "array", "items": item}]},
    }
    return {"type": "object", "properties": properties, "required": ["repeat", "block"], "additionalProperties": False}
