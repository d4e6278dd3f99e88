"""What becomes of a background task that fails: it begins anew, or its process ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import cast

import pytest

from shared import supervision
from shared.supervision import UnaskedCancellation, in_background, loudly, supervised
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


class FailsCleaningUp:
    """Its servers are away when it is cancelled."""

    def __init__(self) -> None:
        self.begun = 0

    async def run(self) -> None:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("nobody there")


class Swallows(FailsCleaningUp):
    async def run(self) -> None:
        with contextlib.suppress(ConnectionError):
            await super().run()


@pytest.mark.parametrize("work", [FailsCleaningUp(), Swallows()], ids=["fails", "returns"])
@pytest.mark.parametrize("keeps_state", [False, True])
async def test_a_stop_is_not_forgotten_where_cleaning_up_fails(
    work: FailsCleaningUp, keeps_state: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "_PAUSE_FIRST_S", 0.001)
    signals: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", signals.append)
    work.begun = 0
    async with in_background({"work": work.run}, keeps_state=keeps_state):
        await asyncio.sleep(0.01)
    assert "did not end" not in caplog.text
    assert work.begun == 1, "it is no defect, and it does not begin anew"
    assert signals == []
    assert [record for record in caplog.records if record.levelno == logging.CRITICAL] == []


async def test_a_cancellation_that_nobody_asked_for_is_a_defect(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Something that the work waited for was cancelled."""
    monkeypatch.setattr(supervision, "_PAUSE_FIRST_S", 0.001)
    work = Work(cast(Exception, asyncio.CancelledError()))
    async with in_background({"work": work.run}, keeps_state=False):

        async def is_running() -> bool:
            return work.begun == 2

        assert await eventually(is_running)
    assert work.cancelled
    assert "nobody" in caplog.text
    assert caplog.records[0].levelno == logging.CRITICAL


async def test_in_a_group_such_a_cancellation_is_an_error() -> None:
    """A group takes it for an orderly end, and waits for the others for ever."""
    others = Work()

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def both() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(loudly(others.run))
            group.create_task(loudly(cancelled))

    with pytest.raises(ExceptionGroup) as raised:
        await both()
    assert raised.group_contains(UnaskedCancellation)
    assert others.cancelled


async def test_work_that_may_end_is_let(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(None)
    async with asyncio.timeout(5):
        await supervised(work.run, "work", keeps_state=False, may_end=lambda: True)
    assert work.begun == 1
    assert caplog.records == []
