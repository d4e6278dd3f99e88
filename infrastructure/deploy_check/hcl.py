"""Reads the part of Terraform's language that holds plain values: defaults of variables, and .tfvars files.

The grammar is python-hcl2's. It returns a string as written, with quotation marks, and an expression as text. Here a
string becomes its value, and anything but a plain value (a reference, a function, a string with ``${…}``) becomes
:data:`EXPRESSION`: nothing is evaluated. Only Terraform can say whether a configuration is valid.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import hcl2
from hcl2.utils import SerializationOptions
from lark.exceptions import LarkError, UnexpectedInput
from typing_extensions import override


class HclInvalid(ValueError):
    """The text is not in this language; the message has the line."""


class _Expression:
    """A value that only Terraform can evaluate."""

    @override
    def __repr__(self) -> str:
        return "(expression)"


EXPRESSION: Final = _Expression()


@dataclass(slots=True)
class Body:
    """Attributes by name, and blocks as (type, labels, body); blocks of one type keep their order."""

    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: list[tuple[str, tuple[str, ...], Body]] = field(default_factory=list)

    def labelled(self, kind: str) -> dict[str, Body]:
        """The blocks of a type, by their last label."""
        return {labels[-1]: body for name, labels, body in self.blocks if name == kind and labels}


_OPTIONS: Final = SerializationOptions(with_comments=False, preserve_scientific_notation=False)
_BLOCK: Final = "__is_block__"
_HEREDOC: Final = re.compile(r'"<<(-?)(\w+)\n(.*?)[ \t]*\2"', re.DOTALL)
# Parts of a string that are not literal: escapes and template marks. A backslash alone is a mistake.
_SPECIAL: Final = re.compile(r'\$\$?\{|%%?\{|\\(?:[nrt"\\]|u[0-9A-Fa-f]{4})?')


def parse(text: str) -> Body:
    """Read a file's text.

    Raises:
        HclInvalid: it is not in this language.
    """
    try:
        return _body(_tree(text))
    except UnexpectedInput as error:
        found = getattr(error, "token", None) or getattr(error, "char", "")
        raise HclInvalid(f"line {error.line}: {str(found)!r} is not expected here") from error
    except LarkError as error:
        raise HclInvalid(str(error)) from error


# A check reads all files of the configuration (66) more than once, and reading them takes seconds: fewer would be read
# anew each time.
@functools.lru_cache(maxsize=256)
def _tree(text: str) -> Mapping[str, Any]:
    return hcl2.loads(text, serialization_options=_OPTIONS)


def read_variables(folder: Path) -> dict[str, Body]:
    """The variables that the root module in ``folder`` declares, by name.

    Raises:
        HclInvalid: a file is not in this language.
        OSError: a file cannot be read.
    """
    found: dict[str, Body] = {}
    for path in sorted(folder.glob("*.tf")):
        found |= _parsed(path).labelled("variable")
    return found


def read_values(path: Path) -> dict[str, Any]:
    """The values that a .tfvars or .tfvars.json file sets.

    Raises:
        HclInvalid: the file is not in its language.
        OSError: it cannot be read.
    """
    if path.suffix == ".json":
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise HclInvalid(f"{path}: {error}") from error
        if not isinstance(values, dict):
            raise HclInvalid(f"{path}: not a JSON object")
        return values
    return _parsed(path).attributes


def _parsed(path: Path) -> Body:
    try:
        return parse(path.read_text())
    except HclInvalid as error:
        raise HclInvalid(f"{path}: {error}") from error


def _body(tree: Mapping[str, Any]) -> Body:
    result = Body()
    for name, raw in tree.items():
        if isinstance(raw, list) and any(map(_is_block, raw)):
            result.blocks += [(name, *_labelled(block)) for block in raw]
        elif name != _BLOCK:
            result.attributes[name] = _value(raw)
    return result


def _is_block(raw: Any) -> bool:
    return isinstance(raw, dict) and (_BLOCK in raw or (len(raw) == 1 and _is_block(*raw.values())))


def _labelled(block: Mapping[str, Any]) -> tuple[tuple[str, ...], Body]:
    labels: list[str] = []
    while _BLOCK not in block:
        ((label, block),) = block.items()
        labels.append(str(_key(label)))
    return tuple(labels), _body(block)


def _value(raw: Any) -> Any:
    if isinstance(raw, list):
        items = [_value(each) for each in raw]
        return EXPRESSION if EXPRESSION in items else items
    if isinstance(raw, dict):
        return {_key(name): _value(each) for name, each in raw.items()}
    if isinstance(raw, str):
        return _text(raw) if raw.startswith('"') else EXPRESSION
    return raw


def _key(raw: str) -> Any:
    return _text(raw) if raw.startswith('"') else raw


def _text(raw: str) -> Any:
    """The value of a string in quotation marks, or of a heredoc, which the library also puts into quotation marks."""
    if heredoc := _HEREDOC.fullmatch(raw):
        return EXPRESSION if heredoc[1] or "${" in heredoc[3] else heredoc[3]
    if any(found in ("${", "%{") for found in _SPECIAL.findall(raw[1:-1])):
        return EXPRESSION
    return "".join(_decoded(raw[1:-1]))


def _decoded(text: str) -> Iterator[str]:
    at = 0
    for special in _SPECIAL.finditer(text):
        yield text[at : special.start()]
        found, at = special[0], special.end()
        if found == "\\":
            raise HclInvalid(f"an escape that is not known in {text[special.start() :][:2]!r}")
        # $${ and %%{ stand for ${ and %{.
        yield json.loads(f'"{found}"') if found[0] == "\\" else found[1:]
    yield text[at:]
