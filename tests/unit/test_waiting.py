"""The one way in which tests wait."""

from __future__ import annotations

import pytest

from tests.waiting import eventually


async def test_the_first_true_answer_is_returned() -> None:
    answers = iter(["", "", "found", "later"])

    async def ask() -> str:
        return next(answers)

    assert await eventually(ask) == "found"
    assert next(answers) == "later"


async def test_a_condition_need_not_be_a_coroutine() -> None:
    answers = iter([False, True])
    assert await eventually(lambda: next(answers))


async def test_what_did_not_come_true_is_named() -> None:
    with pytest.raises(TimeoutError, match=r"^not within 0.05 s: a miracle$"):
        await eventually(lambda: False, "a miracle", seconds=0.05)


async def test_what_the_question_itself_raises_is_told_as_it_is() -> None:
    def ask() -> bool:
        raise TimeoutError("the server did not answer")

    with pytest.raises(TimeoutError, match=r"^the server did not answer$"):
        await eventually(ask, "an answer")
