"""Lines of the log: what they are about, in both forms, and what is in none."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from shared.logs import (
    STACK_CHARACTERS_MAX,
    JsonLines,
    TextLines,
    about,
    request_facts,
    set_up_logging,
    without_secrets,
)

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWFubg"


def record(message: str, *arguments: object, exc_info: Any = None, **extra: str) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.ERROR, __file__, 1, message, arguments, exc_info)
    made.__dict__.update(extra)
    made.created, made.msecs = 1_900_000_000.25, 250.0
    return made


def test_a_json_line_says_what_it_is_about() -> None:
    line = JsonLines().format(record("bid on %s\nnext", "lamp", **about(item="lamp", principal="ann")))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2030-03-17T17:46:40.250Z",
        "level": "ERROR",
        "logger": "shop",
        "message": "bid on lamp\nnext",
        "item": "lamp",
        "principal": "ann",
    }


def test_a_text_line_is_one_line() -> None:
    line = TextLines().format(record("bid\r\n2030 CRITICAL shop: forged", **about(item="a\nb")))
    assert line.endswith("ERROR shop: bid\\r\\n2030 CRITICAL shop: forged [item=a\\nb]")


def test_what_is_known_of_the_request_is_there_and_the_line_knows_better() -> None:
    token = request_facts.set({"request": "r1", "item": "lamp"})
    try:
        told = json.loads(JsonLines().format(record("x", **about(item="jar", bid="b1"))))
    finally:
        request_facts.reset(token)
    assert (told["request"], told["item"], told["bid"]) == ("r1", "jar", "b1")
    assert "request" not in json.loads(JsonLines().format(record("x")))


def failed(text: str) -> Any:
    try:
        raise RuntimeError(text)
    except RuntimeError:
        return sys.exc_info()


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_a_traceback_is_there_and_bounded(lines: logging.Formatter) -> None:
    told = lines.format(record("x", exc_info=failed("y" * 50_000 + "end of it")))
    assert "end of it" in told
    assert len(told) < STACK_CHARACTERS_MAX + 500
    assert len(lines.format(record("z" * 50_000))) < 5_000


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
@pytest.mark.parametrize(
    ("said", "secret"),
    [
        (f"refused {JWT} of ann", JWT.rpartition(".")[2]),
        ("headers: Authorization: Bearer abcdefgh-secret", "abcdefgh-secret"),
        ("Authorization: Basic YW5uOnB3MTIz", "YW5uOnB3MTIz"),
        ("cannot reach redis://ann:pw123@host:6379/0", "pw123"),
        ("cannot reach redis://:pw123@host:6379/0", "pw123"),
        ("GET /ws?token=abc123&feed=full", "abc123"),
        ("dsn host=x password=pw123 user=y", "pw123"),
        ("authorization: ApiKey bk_abcdefABCDEF_" + "Z" * 43, "Z" * 43),
    ],
)
def test_no_line_has_what_opens_a_door(lines: logging.Formatter, said: str, secret: str) -> None:
    for made in (record("%s", said), record("x", exc_info=failed(said))):
        told = lines.format(made)
        assert secret not in told
        assert "[" in told, "it says that something was there"


def test_what_is_no_secret_stays() -> None:
    for text in (
        "the token is expired",
        "12.50 at 2030-01-31",
        "bid eyJ is odd",
        "https://host:8080/path",
        "basic sums",
    ):
        assert without_secrets(text) == text


def test_text_that_has_no_utf_8_is_logged_all_the_same() -> None:
    told = json.loads(JsonLines().format(record("bad \ud800 path")))
    assert told["message"] == "bad \\ud800 path"


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "kind"),
    [("auto", True, TextLines), ("auto", False, JsonLines), ("json", True, JsonLines), ("text", False, TextLines)],
)
def test_which_form_is_chosen(
    monkeypatch: pytest.MonkeyPatch, log_format: Any, is_terminal: bool, kind: type[logging.Formatter]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    set_up_logging("ERROR", log_format)
    assert [type(handler.formatter) for handler in root.handlers] == [kind]
