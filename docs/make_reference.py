"""Write docs/config.md and docs/config.schema.json from the models of the study file."""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "scripts"))

from featurespace.config import Study  # noqa: E402

HEADING = """# The study file

Made from `scripts/featurespace/config.py` by `make generated`; do not edit. Unknown keys are errors. Editors check
and complete a study that begins with `# yaml-language-server: $schema=docs/config.schema.json`.
"""


def schema() -> dict[str, Any]:
    """Return the JSON schema of a study."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


def describe_type(field: dict[str, Any] | bool) -> str:
    """Write a JSON schema's type in words."""
    if field is True or not isinstance(field, dict):
        return "anything"
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(describe_type(member) for member in field[key])
    match field.get("type"):
        case "array":
            return f"list of {describe_type(field.get('items', True))}"
        case "object":
            # pydantic writes a pattern for the names, if they have one
            members = [field["additionalProperties"]] if "additionalProperties" in field else []
            members = [*members, *field.get("patternProperties", {}).values()]
            return f"mapping of names to {describe_type(members[0])}"
        case None:
            return "anything"
        case "null":
            return "empty"
        case kind:
            bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
            limits = [f"{sign} {field[key]:g}" for key, sign in bounds.items() if key in field]
            return " ".join([str(kind), *limits])


def default_of(field: dict[str, Any], required: bool) -> str:
    """Write a field's default, or that it has none."""
    if required:
        return "**needed**"
    if "default" not in field:
        return "its own defaults"
    default = field["default"]
    return "empty" if default in (None, "") else f"`{json.dumps(default, ensure_ascii=False)}`"


def section(name: str, model: dict[str, Any]) -> str:
    """Write one section of the study as a table, a row a key."""
    required = set(model.get("required", []))
    rows = [
        f"| `{key}` | {describe_type(field)} | {default_of(field, key in required)} | {field.get('description', '')} |"
        for key, field in model["properties"].items()
    ]
    summary = " ".join(model.get("description", "").split())
    return "\n".join([f"## {name}", "", summary, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows])


def reference() -> str:
    """Return the reference of the study file, in Markdown."""
    whole = Study.model_json_schema()
    sections = [section("Study", whole)] + [section(name, model) for name, model in sorted(whole["$defs"].items())]
    return HEADING + "\n" + "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    (HERE / "config.md").write_text(reference())
    (HERE / "config.schema.json").write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
