"""Reads the part of Terraform's language that holds plain values: defaults of variables, and .tfvars files.

No expression is worked out. What is not a plain value (a reference, a function, a string with ``${…}``) becomes
:data:`EXPRESSION`, and the reader goes on behind it. Terraform itself stays the judge of a configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from typing_extensions import override


class HclInvalid(ValueError):
    """The text is not of this language; says in which line."""


class _Expression:
    """What only Terraform can work out."""

    @override
    def __repr__(self) -> str:
        return "(expression)"


EXPRESSION: Final = _Expression()


@dataclass(slots=True)
class Body:
    """Attributes by name, and blocks as (type, labels, body), in their order."""

    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: list[tuple[str, tuple[str, ...], Body]] = field(default_factory=list)

    def labelled(self, kind: str) -> dict[str, Body]:
        """The blocks of a type, by their last label."""
        return {labels[-1]: body for name, labels, body in self.blocks if name == kind and labels}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: Any
    line: int


_BLANK = re.compile(r"[ \t\r]+|#[^\n]*|//[^\n]*|/\*.*?\*/", re.DOTALL)
_NUMBER = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_HEREDOC = re.compile(r"<<(-?)([A-Za-z_]\w*)\n(.*?)^[ \t]*\2[ \t]*$", re.DOTALL | re.MULTILINE)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_KEYWORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}
_OPENING: Final = {"(": ")", "[": "]", "{": "}"}


def parse(text: str) -> Body:
    """Read a file's text.

    Raises:
        HclInvalid: it is not of this language.
    """
    reader = _Reader(_tokens(text))
    body = reader.body()
    reader.expect("end")
    return body


def read_variables(folder: Path) -> dict[str, Body]:
    """The variables that the root module in ``folder`` declares, by name.

    Raises:
        HclInvalid: a file is not of this language.
        OSError: a file cannot be read.
    """
    found: dict[str, Body] = {}
    for path in sorted(folder.glob("*.tf")):
        found |= _parsed(path).labelled("variable")
    return found


def read_values(path: Path) -> dict[str, Any]:
    """What a .tfvars or .tfvars.json file sets.

    Raises:
        HclInvalid: the file is not of its language.
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


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        if blank := _BLANK.match(text, at):
            at = blank.end()
        elif text[at] == "\n":
            tokens.append(_Token("newline", "\n", line))
            at += 1
        elif text[at] == '"':
            value, at = _string(text, at + 1, line)
            tokens.append(_Token("value", value, line))
        elif heredoc := _HEREDOC.match(text, at):
            value = heredoc[3]
            tokens.append(_Token("value", EXPRESSION if "${" in value or heredoc[1] else value, line))
            at = heredoc.end()
        elif number := _NUMBER.match(text, at):
            value = float(number[0]) if number[1] or number[2] else int(number[0])
            tokens.append(_Token("value", value, line))
            at = number.end()
        elif name := _NAME.match(text, at):
            tokens.append(_Token("name", name[0], line))
            at = name.end()
        else:
            tokens.append(_Token("mark", text[at], line))
            at += 1
    return [*tokens, _Token("end", "", text.count("\n") + 1)]


def _string(text: str, at: int, line: int) -> tuple[Any, int]:
    """The string that begins at ``at``, behind its quotation mark, and where it ends."""
    parts: list[str] = []
    is_plain = True
    while at < len(text):
        character = text[at]
        if character == '"':
            return "".join(parts) if is_plain else EXPRESSION, at + 1
        if character == "\n":
            break
        if character == "\\":
            if at + 1 >= len(text) or text[at + 1] not in _ESCAPES:
                raise HclInvalid(f"line {line}: an escape that is not known")
            parts.append(_ESCAPES[text[at + 1]])
            at += 2
        elif text.startswith(("$${", "%%{"), at):
            parts.append(text[at + 1 : at + 3])
            at += 3
        elif text.startswith(("${", "%{"), at):
            is_plain = False
            at = _end_of_template(text, at + 2, line)
        else:
            parts.append(character)
            at += 1
    raise HclInvalid(f"line {line}: a string without an end")


def _end_of_template(text: str, at: int, line: int) -> int:
    """Behind the brace that closes a ``${``; strings inside may hold braces of their own."""
    depth = 1
    while at < len(text):
        if text[at] == '"':
            _, at = _string(text, at + 1, line)
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return at
    raise HclInvalid(f"line {line}: a ${{ without an end")


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        # The end stays: whoever looks for more finds it again.
        self._at += token.kind != "end"
        return token

    def _is_mark(self, *marks: str) -> bool:
        return self._next.kind == "mark" and self._next.value in marks

    def _skip_newlines(self) -> None:
        while self._next.kind == "newline":
            self._at += 1

    def expect(self, kind: str, value: str | None = None) -> _Token:
        token = self._take()
        if token.kind != kind or (value is not None and token.value != value):
            raise HclInvalid(f"line {token.line}: {value or kind} expected, not {token.value!r}")
        return token

    def body(self) -> Body:
        """Attributes and blocks up to the end or a closing brace."""
        result = Body()
        self._skip_newlines()
        while self._next.kind == "name":
            name = self._take().value
            if self._is_mark("="):
                self._at += 1
                result.attributes[name] = self._expression()
            else:
                labels: list[str] = []
                while not self._is_mark("{"):
                    token = self._take()
                    if token.kind not in ("name", "value"):
                        raise HclInvalid(f"line {token.line}: = or {{ expected behind {name}")
                    labels.append(token.value)
                self._at += 1
                result.blocks.append((name, tuple(labels), self.body()))
                self.expect("mark", "}")
            self._skip_newlines()
        return result

    def _expression(self) -> Any:
        value = self._value()
        if self._next.kind in ("newline", "end") or self._is_mark(",", "}", "]"):
            return value
        self._skip_expression()
        return EXPRESSION

    def _value(self) -> Any:
        token = self._take()
        if token.kind == "value":
            return token.value
        if token.kind == "name":
            return _KEYWORDS.get(token.value, EXPRESSION)
        if token.value == "-" and self._next.kind == "value" and isinstance(self._next.value, int | float):
            return -self._take().value
        if token.value == "[":
            return self._list()
        if token.value == "{":
            return self._object()
        # Every round of a loop above takes something, or ends here.
        if token.kind in ("newline", "end") or token.value in (",", ")", "]", "}"):
            raise HclInvalid(f"line {token.line}: a value expected")
        self._at -= 1
        self._skip_expression()
        return EXPRESSION

    def _list(self) -> Any:
        items: list[Any] = []
        self._skip_newlines()
        while not self._is_mark("]"):
            if self._next.kind == "name" and self._next.value == "for":
                self._skip_to("]")
                return EXPRESSION
            items.append(self._expression())
            self._skip_newlines()
            if self._is_mark(","):
                self._at += 1
                self._skip_newlines()
        self._at += 1
        return EXPRESSION if EXPRESSION in items else items

    def _object(self) -> Any:
        entries: dict[str, Any] = {}
        self._skip_newlines()
        while not self._is_mark("}"):
            key = self._take()
            if key.kind not in ("name", "value") or key.value == "for" or not self._is_mark("=", ":"):
                self._skip_to("}")
                return EXPRESSION
            self._at += 1
            entries[str(key.value)] = self._expression()
            self._skip_newlines()
            if self._is_mark(","):
                self._at += 1
                self._skip_newlines()
        self._at += 1
        return entries

    def _skip_expression(self) -> None:
        """To what ends an expression, past everything in brackets."""
        while not (self._next.kind in ("newline", "end") or self._is_mark(",", "}", "]", ")")):
            token = self._take()
            if token.kind == "mark" and token.value in _OPENING:
                self._skip_to(_OPENING[token.value])

    def _skip_to(self, closing: str) -> None:
        """Behind the bracket that closes the one that was opened."""
        while True:
            token = self._take()
            if token.kind == "end":
                raise HclInvalid(f"line {token.line}: {closing} expected")
            if token.kind == "mark" and token.value in _OPENING:
                self._skip_to(_OPENING[token.value])
            elif token.kind == "mark" and token.value == closing:
                return
