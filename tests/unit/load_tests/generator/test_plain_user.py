"""A bidder on a plain connection keeps honest books, whatever the other side answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from infrastructure.local.servers.ports import HOST
from load_tests.generator.driver import Load, LoadError
from load_tests.generator.ledger import Ledger
from load_tests.generator.plain.driver import run_plain
from load_tests.generator.plain.user import Run, User
from load_tests.generator.tally import Progress, Tally
from tests.tcp import serving
from tests.waiting import eventually

ITEM = b'{"id":"lot","current_bid":5.00,"min_next_bid":5.50,"highest_bidder_id":null,"bid_count":1,"seq":1,"epoch":1}'
LOST = b'{"success":false,"code":"TOO_LOW","current_bid":6.00,"min_next_bid":6.50,"you_lead":false}'
WON = b'{"success":true,"seq":7,"is_highest":false,"current_bid":6.00,"min_next_bid":6.50}'


def run_of(port: int, **more: object) -> Run:
    told = {"host": HOST, "port": port, "process": 0, "users": 1, "spawn_per_s": 10.0, "run_s": 1, "item_ids": ["lot"]}
    told |= {"tag": "t", "bid_weight": 9, "look_weight": 0, "spread_minor": 0, "think_s": 0.0, "pace_s": 0.0}
    return Run(**(told | {"patience_s": 60.0, "books": ""} | more))  # type: ignore[arg-type]


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length:  %d\r\n\r\n%b" % (status, len(body), body)


async def books(answer: Callable[[bytes], bytes], enough: Callable[[Tally], bool], **more: object) -> Ledger:
    """What a user writes down, who is answered so, until it is enough."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.rpartition(b"content-length: ")[2]) if b"content-length" in head else 0
            sent = answer(head + await reader.readexactly(length))
            if not sent:
                return
            # In two pieces, as networks may.
            writer.write(sent[:9])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(sent[9:])

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except asyncio.IncompleteReadError:
            return

    async with serving(handled) as port:
        tally = Tally(["lot"])
        user = User(run_of(port, **more), tally, 1)
        await user.connect()

        def is_enough() -> bool:
            user.lose_patience()
            return enough(tally)

        await eventually(is_enough, seconds=60)
        await user.stop()
        user.leave()
        await asyncio.sleep(0)
        return tally.close()


def by_kind(look: bytes, bid: bytes) -> Callable[[bytes], bytes]:
    return lambda request: look if request.startswith(b"GET ") else bid


async def test_a_user_looks_bids_and_learns() -> None:
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        return by_kind(http(200, ITEM), http(201, WON))(request)

    ledger = await books(answer, lambda tally: tally.accepted >= 3)
    assert asked[0].startswith(b"GET /api/v1/items/lot HTTP/1.1\r\n")
    assert b'"amount":5.50,"bid_id":"t-user-0-1-1"}' in asked[1]
    assert b'"amount":6.50,"bid_id":"t-user-0-1-2"}' in asked[2], "the price of the answer"
    assert [entry.seq for entry in ledger.items["lot"].accepted][:3] == [7, 7, 7]
    assert (ledger.failures, ledger.unknown) == (0, 0)


async def test_a_refusal_is_no_failure() -> None:
    ledger = await books(by_kind(http(200, ITEM), http(200, LOST)), lambda tally: tally.refused >= 2)
    assert ledger.items["lot"].refused["TOO_LOW"] >= 2
    assert ledger.failures == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n" + WON,
        b"HTTP/1.1 201 Created\r\ncontent-length: no\r\n\r\n" + WON,
        http(201, WON) + b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["cut", "no-http", "no-length", "bad-length", "more-than-asked"],
)
async def test_what_cannot_be_read_leaves_the_bid_unknown_and_the_user_comes_back(answer: bytes) -> None:
    ledger = await books(by_kind(http(200, ITEM), answer), lambda tally: tally.unknown >= 2)
    assert ledger.unknown >= 2
    assert not ledger.items["lot"].accepted


async def test_an_answer_that_does_not_come_in_time_is_unknown() -> None:
    def answer(request: bytes) -> bytes:
        return http(200, ITEM) if request.startswith(b"GET ") else b"HTTP/1.1 201 Created\r\ncontent-length: 9\r\n"

    ledger = await books(answer, lambda tally: tally.unknown >= 1, patience_s=0.2)
    assert ledger.unknown >= 1


async def test_in_an_open_run_the_wait_for_the_own_answer_counts() -> None:
    due = {"pace_s": 0.001}
    ledger = await books(by_kind(http(200, ITEM), http(200, LOST)), lambda tally: tally.refused >= 200, **due)
    # 200 bids and a look, due within 0.2 s, took longer than that: the last ones were overdue when they were sent.
    assert ledger.latency.max_ms > 1


async def test_what_plain_users_cannot_do_is_told(tmp_path: Path) -> None:
    def heard(_: Progress) -> None:
        raise AssertionError("nothing runs")

    load = Load(users=1, run_s=1, item_ids=["lot"], tag="t")
    with pytest.raises(LoadError, match="use Locust there"):
        await run_plain("https://127.0.0.1:1", load, tmp_path, heard)
    watching = Load(users=1, run_s=1, item_ids=["lot"], tag="t", scenario="watching")
    with pytest.raises(LoadError, match="not watching"):
        await run_plain("http://127.0.0.1:1", watching, tmp_path, heard)


async def test_who_was_cut_off_while_thinking_does_not_act_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    due: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        due.append(call_later(delay, callback))
        return due[-1]

    class Wire(asyncio.Transport):
        def is_closing(self) -> bool:
            return False

        def write(self, data: object) -> None:
            pass

    user = User(run_of(1, think_s=60.0), Tally(["lot"]), 1)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "call_later", noted)
        for _ in range(3):
            user.connection_made(Wire())
            user.data_received(http(200, ITEM))
            user._is_stopping = True  # it is the test that brings it back
            user.connection_lost(None)
            user._is_stopping = False
    assert [timer.cancelled() for timer in due] == [True, True, False]
    due[-1].cancel()
