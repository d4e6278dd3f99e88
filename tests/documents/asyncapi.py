"""The schemas of docs/asyncapi.yaml and of the gateway's OpenAPI document, read strictly: what they do not name is an
error, unlike in JSON Schema itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

PATH = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"

Json = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# Those that this reader knows. A schema with another one fails loudly: it would check less than it says.
_KEYWORDS = {
    "type", "required", "properties", "additionalProperties", "items", "enum", "const", "pattern", "format", "minimum",
    "exclusiveMinimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "allOf", "anyOf", "oneOf", "if",
    "else", "description", "title", "default", "examples",
}  # fmt: skip


class SchemaDocument:
    """A document with schemas that refer to each other."""

    def __init__(self, document: Json) -> None:
        self.document = document

    def resolve(self, reference: str) -> Json:
        """What a ``$ref`` of this document stands for; KeyError where it leads nowhere."""
        found: Any = self.document
        assert reference.startswith("#/"), reference
        for part in reference[2:].split("/"):
            found = found[part]
        assert isinstance(found, dict), reference
        return found

    def complaints(self, schema: Json, value: object, path: str = "$") -> list[str]:
        """What of a value is not as the schema says; empty where all of it is."""
        found = list(self._complaints(schema, value, path))
        # One of several is looked at by itself, and strictly, where it is tried.
        if isinstance(value, dict) and not self._is_map(schema) and not {"anyOf", "oneOf"} & schema.keys():
            named = set(self._properties(schema))
            found += [f"{path}.{name}: not in the schema" for name in value if name not in named]
        return found

    def _is_map(self, schema: Json) -> bool:
        resolved = self.resolve(schema["$ref"]) if "$ref" in schema else schema
        return resolved.get("additionalProperties", False) is not False

    def _properties(self, schema: Json) -> Iterator[str]:
        if "$ref" in schema:
            yield from self._properties(self.resolve(schema["$ref"]))
        yield from schema.get("properties", ())
        for part in schema.get("allOf", ()):
            yield from self._properties(part)

    def _complaints(self, schema: Json, value: object, path: str) -> Iterator[str]:
        if "$ref" in schema:
            yield from self._complaints(self.resolve(schema["$ref"]), value, path)
            return
        assert set(schema) <= _KEYWORDS, f"{path}: {set(schema) - _KEYWORDS} is not understood here"
        for part in schema.get("allOf", ()):
            yield from self._complaints(part, value, path)
        yield from self._choice_complaints(schema, value, path)
        if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
            yield f"{path}: {value!r} is not {schema['const']!r}"
        if "enum" in schema and value not in schema["enum"]:
            yield f"{path}: {value!r} is none of {schema['enum']}"
        if not _has_type(schema.get("type"), value):
            yield f"{path}: {value!r} is no {schema['type']}"
            return
        if isinstance(value, str):
            yield from _text_complaints(schema, value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if "minimum" in schema and value < schema["minimum"]:
                yield f"{path}: {value} is below {schema['minimum']}"
            if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
                yield f"{path}: {value} is not above {schema['exclusiveMinimum']}"
            if "maximum" in schema and value > schema["maximum"]:
                yield f"{path}: {value} is above {schema['maximum']}"
        elif isinstance(value, dict):
            yield from self._object_complaints(schema, value, path)
        elif isinstance(value, list):
            if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
                yield f"{path}: has {len(value)} elements"
            if "items" not in schema:
                return
            for number, each in enumerate(value):
                yield from self.complaints(schema["items"], each, f"{path}[{number}]")

    def _choice_complaints(self, schema: Json, value: object, path: str) -> Iterator[str]:
        for keyword in ("anyOf", "oneOf"):
            tried = [self.complaints(each, value, path) for each in schema.get(keyword, ())]
            fitting = sum(not complaints for complaints in tried)
            if tried and (fitting == 0 or (keyword == "oneOf" and fitting > 1)):
                yield f"{path}: fits {fitting} of {keyword}: {tried}"
        if "if" in schema and list(self._complaints(schema["if"], value, path)):
            yield from self._complaints(schema["else"], value, path)

    def _object_complaints(self, schema: Json, value: Json, path: str) -> Iterator[str]:
        yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(inner, dict):
                yield from self.complaints(inner, each, f"{path}.{name}")


class AsyncApi(SchemaDocument):
    """The description of the live feed."""

    def __init__(self, document: Json | None = None) -> None:
        super().__init__(document or yaml.safe_load(PATH.read_text()))

    @property
    def messages(self) -> dict[str, Json]:
        """The payload schemas by the name of the message."""
        messages: dict[str, Json] = self.document["components"]["messages"]
        return {name: message["payload"] for name, message in messages.items()}

    def names_of(self, frame: Json) -> list[str]:
        """The messages that a frame or operation may be."""
        return [name for name, schema in self.messages.items() if not self.complaints(schema, frame)]

    def why_not(self, frame: Json) -> str:
        """The complaints of the message that fits best, for the failure of a test."""
        found = [(self.complaints(schema, frame), name) for name, schema in self.messages.items()]
        complaints, name = min(found, key=lambda each: len(each[0]))
        return f"as {name}: {complaints}"


def _has_type(wanted: str | list[str] | None, value: object) -> bool:
    if wanted is None:
        return True
    if isinstance(value, bool):
        return "boolean" in wanted
    names = [wanted] if isinstance(wanted, str) else wanted
    return any(isinstance(value, _TYPES[name]) for name in names)


def _text_complaints(schema: Json, value: str, path: str) -> Iterator[str]:
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters are too few or too many"
    if schema.get("format") == "date-time":
        try:
            is_aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            is_aware = False
        if not is_aware:
            yield f"{path}: {value!r} is no date-time"
