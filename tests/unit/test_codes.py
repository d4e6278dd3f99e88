"""Each code that a client may compare is in all of its places: a new one cannot be forgotten in any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from api_gateway.contract.documented import RefusalCode
from api_gateway.hot_path import REFUSALS
from shared.domain.errors import BiddingError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "run-an-auction.md").read_text()
OF_THE_CALL = re.compile(r'\b(?:problem|problem_body|refuse|_refuse|_Refused|Refusal)\(\s*\d{3},\s*"([A-Z_]+)"')
OF_THE_FRAMEWORK = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
"""Made of the status."""


def rows(heading: str) -> set[str]:
    """The codes in the first column of the table in a section of the page."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {code for cell in cells for code in re.findall(r"`([A-Z_]{4,})`", cell)}


def errors(base: type[BiddingError]) -> Iterator[type[BiddingError]]:
    yield base
    for each in base.__subclasses__():
        yield from errors(each)


def test_a_refusal_has_its_message_its_enum_entry_its_page_text_and_its_line_in_the_readme() -> None:
    told = re.search(r"Codes: ``([A-Z_\s]+)``", (ROOT / "shared/domain/bidding.py").read_text())
    assert told is not None
    codes = set(told[1].split())
    scripts = "".join(path.read_text() for path in (ROOT / "api_gateway/engine/lua").rglob("*.lua"))
    assert len(codes) > 5
    assert set(re.findall(r"refused\('([A-Z_]+)'", scripts)) <= codes
    assert set(get_args(RefusalCode)) == codes
    # This one has the least amount in its text.
    assert set(REFUSALS) == codes - {"TOO_LOW"}
    texts = (ROOT / "api_gateway/web/static/js/bidding/verdicts.js").read_text()
    assert [code for code in codes if not re.search(rf"\b{code}\b", texts)] == []
    readme = (ROOT / "README.md").read_text()
    assert [code for code in codes if f"`{code}`" not in readme] == []
    assert rows("When a bid is refused") == codes


def test_every_problem_code_of_the_gateway_is_on_the_page() -> None:
    modules = ("shared.domain", "shared.identity", "api_gateway")
    codes = {each.code for each in errors(BiddingError) if each.__module__.startswith(modules)}
    for folder in ("api_gateway", "shared/http"):
        for path in (ROOT / folder).rglob("*.py"):
            codes |= set(OF_THE_CALL.findall(path.read_text()))
    codes |= OF_THE_FRAMEWORK | {"INTERNAL_ERROR", "HEAD_TOO_LARGE"}
    codes -= {"BIDDING_ERROR"}
    assert len(codes) > 20
    assert rows("Errors") == codes
