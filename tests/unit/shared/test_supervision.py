"""What becomes of a background task that fails: it begins anew, or its process ends in good order."""

from __future__ import annotations

import asyncio
import logging
import signal

import pytest

from shared import supervision
from shared.supervision import in_background
from tests.waiting import eventually


class Work:
    """Fails as often as it is told to, and then runs until it is cancelled."""

    def __init__(self, *failures: Exception | None) -> None:
        self._failures = list(failures)
        self.begun = 0
        self.cancelled = False

    async def run(self) -> None:
        self.begun += 1
        if self._failures:
            failure = self._failures.pop(0)
            if failure is None:
                return
            raise failure
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


async def test_work_without_state_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "_PAUSE_FIRST_S", 0.001)
    broken, sound = Work(ValueError("a defect"), None), Work()
    async with in_background({"broken": broken.run, "sound": sound.run}, keeps_state=False):

        async def is_running() -> bool:
            return broken.begun == 3

        assert await eventually(is_running)
        assert (sound.begun, sound.cancelled) == (1, False)
    assert broken.cancelled
    assert sound.cancelled
    assert "a defect" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.CRITICAL}


@pytest.mark.parametrize("failure", [ValueError("a defect"), None], ids=["fails", "returns"])
async def test_the_process_ends_where_work_keeps_state(failure: Exception | None) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    try:
        broken, sound = Work(failure), Work()
        async with in_background({"broken": broken.run, "sound": sound.run}, keeps_state=True):
            async with asyncio.timeout(5):
                await told.wait()
            assert (broken.begun, sound.cancelled) == (1, False), "what else runs is ended in its turn"
        assert sound.cancelled
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_work_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "STOP_S", 0.05)
    go_on = asyncio.Event()

    async def stubborn() -> None:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    async with in_background({"stubborn": stubborn}, keeps_state=False):
        await asyncio.sleep(0)
    assert "stubborn did not end" in caplog.text
    go_on.set()
    await asyncio.sleep(0.01)
