"""No command line of a page is without a test, or a reason why there is none."""

from __future__ import annotations

from tests.documents.commands import ELSEWHERE, EXECUTED, NOT_EXECUTED, documented, is_executed


def test_every_command_is_executed_or_says_why_not() -> None:
    commands = documented()
    assert len(commands) > 80
    known = (*ELSEWHERE, *NOT_EXECUTED)
    assert [each for each in commands if not is_executed(each) and not each.text.startswith(known)] == []


def test_no_entry_is_left_over() -> None:
    texts = [each.text for each in documented()]
    stale = [each for each in (*ELSEWHERE, *NOT_EXECUTED) if not any(text.startswith(each) for text in texts)]
    assert stale == []
    assert [
        page for page in EXECUTED if not any(each.page == page and is_executed(each) for each in documented())
    ] == []
