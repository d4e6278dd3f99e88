"""A refusal that is about one member of the request names it, so that a form can show it there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api_gateway.changes.new_items import new_item
from api_gateway.contract.problems import problem_of
from api_gateway.contract.schemas import NewItemBody
from shared.domain.errors import InvalidInput, KeyReused


def refusal(**terms: Any) -> dict[str, Any]:
    body = msgspec.json.decode(msgspec.json.encode({"name": "A vase", **terms}), type=NewItemBody)
    with pytest.raises(InvalidInput) as caught:
        new_item(body)
    status, content, _ = problem_of(caught.value)
    assert status == 422
    decoded: dict[str, Any] = msgspec.json.decode(content)
    return decoded


@pytest.mark.parametrize(
    ("field", "terms"),
    [
        ("name", {"name": "  "}),
        ("name", {"name": "a\0b"}),
        ("name", {"name": "two\nlines"}),
        ("name", {"name": "\x1b[2Jred"}),
        ("name", {"name": "a\x9bb"}),
        ("description", {"description": "a\0b"}),
        ("description", {"description": "\x1b[2J"}),
        ("currency", {"currency": "XXQ"}),
        ("start_price", {"start_price": -1}),
        ("reserve_price", {"start_price": 5, "reserve_price": 10.001}),
        ("reserve_price", {"start_price": 5, "reserve_price": 4}),
        ("buy_now_price", {"buy_now_price": "12"}),
        ("increment", {"increment": {"kind": "percent", "value": 101}}),
        ("increment", {"increment": {"kind": "flat", "value": 0}}),
        ("increment", {"increment": {"kind": "ladder", "steps": [{"increment": 0.001}]}}),
        ("increment", {"increment": {"kind": "ladder", "steps": [{"increment": None}]}}),
        ("end_time", {"end_time": "tomorrow"}),
        ("soft_close", {"soft_close": {"trigger_s": 1, "extend_s": 1}}),
    ],
)
def test_the_field_is_named(field: str, terms: dict[str, Any]) -> None:
    assert refusal(**terms)["field"] == field


@pytest.mark.parametrize("text", ["a\tb\r\nc", "\u05d0 \u202e \u2028 \U0001f3bb"])
def test_what_is_no_control_character_is_taken(text: str) -> None:
    body = msgspec.json.decode(msgspec.json.encode({"name": "A vase", "description": text}), type=NewItemBody)
    assert new_item(body).description == text


def test_what_is_about_no_field_names_none() -> None:
    _, content, _ = problem_of(KeyReused("k"))
    assert "field" not in msgspec.json.decode(content)
