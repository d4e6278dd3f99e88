"""Calls that block: one at a time, and none keeps the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from archival_worker.chain.blocking import BlockingCalls
from archival_worker.errors import ExportFailed
from tests.waiting import eventually


async def test_a_call_returns_or_raises_what_it_does() -> None:
    calls = BlockingCalls()
    assert await calls.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await calls.run(divmod, 7, 0)
    assert not calls.is_running


async def test_until_a_call_that_was_given_up_has_returned_there_is_no_other_one() -> None:
    calls, may_return = BlockingCalls(), threading.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(calls.run(may_return.wait, 120), 0.01)
    with pytest.raises(ExportFailed, match="has not returned"):
        await calls.run(divmod, 7, 2)
    may_return.set()
    await eventually(lambda: not calls.is_running)
    assert await calls.run(divmod, 7, 2) == (3, 1)


async def test_what_is_to_be_done_afterwards_waits_for_the_call_and_is_done_once() -> None:
    calls, may_return, done = BlockingCalls(), threading.Event(), list[str]()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(calls.run(may_return.wait, 120), 0.01)
    calls.run_afterwards(lambda: done.append("first"))
    calls.run_afterwards(lambda: done.append("second"))
    assert done == []
    may_return.set()
    await eventually(lambda: not calls.is_running)
    assert done == ["first", "second"]
    calls.run_afterwards(lambda: done.append("third"))
    await eventually(lambda: not calls.is_running)
    assert done == ["first", "second", "third"]


def test_a_call_that_never_returns_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from archival_worker.chain.blocking import BlockingCalls

async def main():
    try:
        await asyncio.wait_for(BlockingCalls().run(threading.Event().wait), 0.01)
    except TimeoutError:
        print("given up", flush=True)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "given up\n"), ended.stderr
