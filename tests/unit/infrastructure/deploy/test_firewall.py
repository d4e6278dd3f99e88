"""Without tokens the firewall alone keeps others from what is an operator's: its rules against the table of calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[4]
RULES: Final = (ROOT / "infrastructure" / "terraform" / "modules" / "alb" / "firewall.tf").read_text()
TABLE: Final = (ROOT / "docs" / "security.md").read_text()

_LIMIT_OF_WAF: Final = 512
_ROW = re.compile(r"^\| `(\w+)` \| `(\w+) (/[^`]*)`[^|]*\| (\w+) \| (\w+) \|", re.MULTILINE)


def _texts(name: str) -> list[str]:
    start = RULES.index(f"  {name} ")
    return re.findall(r'"(\^[^"]+)"', RULES[start : RULES.index("\n  #" if name == "operator_paths" else "\n", start)])


OPERATOR_PATHS: Final = _texts("operator_paths")
(CREATE_PATH,) = _texts("create_path")
(METHODS,) = _texts("ruling_methods")


def _is_guarded(method: str, path: str) -> bool:
    return (
        any(re.search(each, path) for each in OPERATOR_PATHS)
        or (method == "POST" and re.search(CREATE_PATH, path) is not None)
        or re.search(METHODS, method) is not None
    )


def _calls() -> list[tuple[str, str, str, bool]]:
    """Call, method, a path of the kind, and whether nobody or a bidder may make it, where tokens tell."""
    found = [
        (call, method, re.sub(r"\{\w+\}", "a-1", path), nobody == "any" or bidder != "no")
        for call, method, path, nobody, bidder in _ROW.findall(TABLE)
    ]
    assert len(found) > 40
    return found


@pytest.mark.parametrize(("call", "method", "path", "is_open"), _calls())
def test_what_is_not_a_bidders_is_behind_the_firewall(call: str, method: str, path: str, is_open: bool) -> None:
    # The API leaves /metrics to its own rules, which know networks. Without tokens nobody has a watch list to change.
    assert _is_guarded(method, path) is (call in ("get_metrics", "watch_item", "unwatch_item") or not is_open)


def test_a_bid_id_with_a_slash_leads_past_no_rule() -> None:
    assert _is_guarded("POST", "/api/v1/items/a-1/bids/x/y/void")


def test_waf_takes_patterns_of_this_length() -> None:
    assert len("|".join(OPERATOR_PATHS)) <= _LIMIT_OF_WAF
