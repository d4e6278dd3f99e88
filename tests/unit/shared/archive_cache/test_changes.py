"""What is heard of the stream, and what may be kept of the archive's answers until the archive has heard it too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from shared import names
from shared.archive_cache import changes as module
from shared.archive_cache import reads as reads_module
from shared.archive_cache.changes import STALLED_S, Changes
from shared.archive_cache.progress import Head, Progress
from shared.archive_reads.keys import history_key, item_key, state_key
from shared.clients.nats import StreamUnavailable
from shared.domain.errors import InvalidInput, Unavailable
from shared.messages import AuctionClosed, BidAccepted, frame_batch
from shared.read_cache.groups.group import GroupLimits
from shared.supervision import UnaskedCancellation
from tests.unit.shared.archive_cache.changes_world import BID, STATE, Archive, World, message, void, world
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    monkeypatch.setattr(module, "_TRY_AGAIN_S", 0.01)
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    # Longer than any pause of the machine.
    monkeypatch.setattr(reads_module, "LIMITS", GroupLimits(negative_ttl_s=60))


async def test_nothing_is_kept_before_the_stream_is_followed_and_the_archive_has_it() -> None:
    async with world() as here:
        here.archive.progress = Progress(5, 3, 8)
        assert not await here.kept("items/lot")
        here.changes.on_stream_up()
        await asyncio.sleep(0.05)
        assert not await here.kept("items/lot")
        here.archive.progress = Progress(9, 5, 8)  # what was there when it began is archived; that is enough
        await here.in_step()
        assert await here.kept("items/lot")
        here.changes.on_stream_down()
        assert not await here.kept("items/lot")


async def test_what_a_void_changes_is_forgotten_and_not_kept_before_it_is_archived() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        keys = [item_key("lot"), state_key("lot"), history_key("lot"), history_key("lot", limit=3)]
        for key in [*keys, item_key("other")]:
            assert await here.kept(key)
        here.archive.progress = Progress(6, 5, 8)
        here.hear(void())
        for key in keys:
            assert await here.reads.get(key) == b"before", "the archive does not have it yet"
        here.archive.value = b"after"
        for key in keys[:3]:
            assert await here.reads.get(key) == b"after", "and that was not kept"
            assert not await here.kept(key)
        assert await here.reads.get(item_key("other")) == b"before", "others are kept"
        here.archive.progress = Progress(6, 6, 8)
        await here.settled()
        for key in keys[:3]:
            assert await here.kept(key)
        assert await here.reads.get(keys[3]) == b"after", "nobody knows which of its pages were kept: all are forgotten"


async def test_a_question_that_began_before_is_not_kept() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        here.archive.may_answer.clear()
        asked = asyncio.create_task(here.reads.get("items/lot"))
        await eventually(lambda: bool(here.archive.asked))
        here.hear(void())
        await here.settled()
        here.archive.value = b"after"
        here.archive.may_answer.set()
        assert await asked == b"before"
        assert await here.reads.get("items/lot") == b"after"


async def test_an_item_that_is_closed_is_no_longer_taken_for_missing() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        here.archive.value = None
        assert await here.kept("items/lot")
        here.hear(message(AuctionClosed(**STATE | {"status": "sold", "winner_id": "ann"})))
        here.archive.value = b"closed"
        assert await here.reads.get("items/lot") == b"closed"


@pytest.mark.parametrize(
    "data",
    [
        message(BidAccepted(**STATE | BID)),
        message(BidAccepted(**STATE | BID | {"user_id": "unsold-voided"})),
    ],
)
async def test_bids_change_nothing_of_closed_items(data: bytes) -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        here.hear(data)
        assert here.changes.unsettled == 0


async def test_what_cannot_be_read_may_be_anything() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        here.archive.progress = Progress(6, 5, 8)
        here.hear(b'{"v":9,"what":"sold"}')
        assert here.changes.is_unsettled("lot")
        event = msgspec.json.encode(STATE | {"type": "crowned", "status": "sold", "item_id": "new"})
        here.hear(frame_batch("s01", 1, 1, "new", b"[" + event + b"]"), "new")
        assert here.changes.is_unsettled("new")


async def test_a_process_that_slept_trusts_nothing_that_it_kept() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        assert await here.kept("items/lot")
        here.now_s += STALLED_S + 1
        here.archive.value = b"after"
        here.archive.progress = Progress(9, 5, 8)
        assert await here.reads.get("items/lot") == b"after", "at the first question"
        assert not here.changes.is_keeping
        here.archive.progress = Progress(9, 9, 8)
        await here.in_step()


async def test_who_does_something_all_the_time_has_not_slept() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        for _ in range(5):
            here.now_s += STALLED_S - 1
            here.changes.check()
        assert here.changes.is_keeping


async def test_one_round_settles_all_that_was_heard_before_it() -> None:
    changes = Changes(Archive())
    for item_id in ("a", "b"):
        changes.on_message(names.subject_of(item_id), void(item_id=item_id))
    assert changes.unsettled == 2
    await changes._settle_once()
    assert changes.unsettled == 0


async def test_how_long_it_may_sleep_can_be_told() -> None:
    async with world() as here:
        here.changes = Changes(here.archive, clock=lambda: here.now_s, stalled_s=6)
        here.changes.attach(here.cache)
        settling = asyncio.create_task(here.changes.settle())
        here.changes.on_stream_up()
        await here.in_step()
        here.now_s += 6
        here.changes.check()
        assert here.changes.is_keeping
        here.now_s += 6.1
        here.changes.check()
        assert not here.changes.is_keeping
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)


async def test_more_than_can_be_remembered_stops_the_keeping_until_the_archive_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "UNSETTLED_MAX", 3)
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        here.archive.progress = Progress(9, 5, 8)
        for number in (0, 1, 2, 0, 1, 2):
            here.hear(void(item_id=f"lot-{number}"), f"lot-{number}")
        assert here.changes.is_keeping, "so many are remembered, however often they change"
        here.hear(void(item_id="lot-3"), "lot-3")
        assert not here.changes.is_keeping
        assert not await here.kept("items/lot-0")
        here.archive.progress = Progress(9, 9, 8)
        await here.in_step()
        assert await here.kept("items/lot-0")


async def test_jetstream_may_be_away_or_made_anew() -> None:
    async with world() as here:
        here.archive.is_away = True
        here.changes.on_stream_up()
        await asyncio.sleep(0.05)
        assert not here.changes.is_keeping
        here.archive.is_away = False
        here.archive.progress = Progress(50, 5, 8)
        await asyncio.sleep(0.05)
        here.archive.progress = Progress(0, 0, 9)  # it has lost its disk
        await here.in_step()


async def test_what_is_no_key_never_reaches_the_archive() -> None:
    async with world() as here:
        for key in ("", "items/", "items/a/b", "items/a/bids/5/x", "what/a", "x" * 700):
            with pytest.raises(InvalidInput):
                await here.reads.get(key)
        for key in ("catalogue/newest/any/5/x", "catalogue/newest/any/5/x.y", "catalogue/newest/what/5"):
            with pytest.raises(InvalidInput):
                await here.reads.get(key)
        assert here.archive.asked == []


async def test_how_far_it_has_heard() -> None:
    """Told to others: what was handled. Asked of others: what may have changed something that is kept here."""
    async with world() as here:
        here.changes.follow(lambda: here.sequence)
        here.archive.progress = Progress(5, 5, 8)
        here.changes.on_stream_up()
        await here.in_step()
        assert (here.changes.heard, here.changes.needed) == (5, 5), "the archive had that when keeping began"
        here.sequence = 6
        here.hear(message(BidAccepted(**STATE | BID)))
        assert (here.changes.heard, here.changes.needed) == (6, 5)
        here.sequence = 7
        here.hear(void())
        await here.settled()
        assert (here.changes.heard, here.changes.needed) == (7, 7), "also after it is settled"
        assert here.changes.stream == 8
        here.archive.progress = Progress(3, 3, 9)  # another stream
        here.sequence = 0
        here.changes.on_stream_down()
        here.changes.on_stream_up()
        await here.in_step()
        assert (here.changes.heard, here.changes.needed, here.changes.stream) == (3, 3, 9)


async def test_nothing_is_kept_again_before_what_no_event_tells_is_known() -> None:
    async with world() as here:
        is_known = True

        async def before_keeping() -> None:
            if not is_known:
                raise Unavailable("the archive cannot be asked")

        here.changes._before_keeping = before_keeping
        here.changes.on_stream_up()
        await here.in_step()
        assert await here.kept("items/lot")
        is_known = False
        here.changes.on_stream_down()
        here.changes.on_stream_up()
        await asyncio.sleep(0.05)
        assert not await here.kept("items/lot")
        is_known = True
        await here.in_step()
        assert await here.kept("items/lot")


async def test_nothing_is_kept_where_something_was_missed_while_that_was_found_out() -> None:
    async with world() as here:
        asked, may_go_on = asyncio.Event(), asyncio.Event()

        async def before_keeping() -> None:
            asked.set()
            await may_go_on.wait()

        here.changes._before_keeping = before_keeping
        here.changes.on_stream_up()
        await asyncio.wait_for(asked.wait(), 10)
        here.archive.progress = Progress(9, 5, 8)
        here.changes.on_stream_down()
        here.changes.on_stream_up()
        may_go_on.set()
        await asyncio.sleep(0.05)
        assert not here.changes.is_keeping, "the archive does not have what was missed"
        here.archive.progress = Progress(9, 9, 8)
        await here.in_step()


async def test_a_part_that_is_cancelled_from_within_ends_all_of_it_loudly() -> None:
    """The group would take it for an orderly end, and go on without events, for ever in step."""

    class CancelledFollower:
        sequence = 0

        def begin_anew(self, reason: str) -> None:
            raise AssertionError

        async def run(self, listener: object) -> None:
            await asyncio.sleep(0.01)
            raise asyncio.CancelledError

    changes = Changes(Archive())
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(changes.run(cast(Any, CancelledFollower())), 5)
    assert [type(error) for error in caught.value.exceptions] == [UnaskedCancellation]


@asynccontextmanager
async def watched(here: World) -> AsyncIterator[list[str]]:
    """Bring it in step and compare it with the stream. Yields the reasons for which the stream was followed anew."""
    here.changes.follow(lambda: here.sequence)
    here.changes.on_stream_up()
    await here.in_step()
    reasons: list[str] = []
    task = asyncio.create_task(here.changes.watch(reasons.append))
    try:
        yield reasons
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def heads(here: World, count: int = 4) -> None:
    until = here.archive.heads + count
    await eventually(lambda: here.archive.heads >= until)


async def test_who_does_not_hear_what_the_stream_has_follows_it_anew() -> None:
    """Heartbeats may go on all the same."""
    async with world() as here, watched(here) as reasons:
        assert await here.kept("items/lot")
        await heads(here)
        here.sequence, here.archive.progress = 6, Progress(6, 6, 8)
        await heads(here)
        assert (reasons, await here.kept("items/lot")) == ([], True), "all was heard"
        here.archive.value = b"after"
        here.archive.progress = Progress(7, 7, 8)
        await eventually(lambda: bool(reasons))
        assert "was at 7" in reasons[0]
        assert "ends at 6" in reasons[0]
        assert await here.reads.get("items/lot") == b"after"


async def test_who_follows_a_stream_that_is_no_more_follows_it_anew() -> None:
    async with world() as here, watched(here) as reasons:
        assert await here.kept("items/lot")
        here.archive.value = b"after"
        here.archive.progress = Progress(2, 2, 9)
        await eventually(lambda: bool(reasons))
        assert "made anew" in reasons[0]
        assert await here.reads.get("items/lot") == b"after"


async def test_who_cannot_ask_what_the_stream_has_keeps_nothing() -> None:
    async with world() as here, watched(here) as reasons:
        assert await here.kept("items/lot")
        here.archive.is_away = True
        await eventually(lambda: not here.changes.is_keeping)
        await heads(here, 2)
        assert not await here.kept("items/lot")
        here.archive.is_away = False
        await here.in_step()
        assert reasons == []


async def test_a_stream_that_does_not_answer_now_and_then_costs_nothing() -> None:
    """Only twice in a row."""

    class NowAndThen(Archive):
        async def head(self) -> Head:
            self.heads += 1
            if self.heads % 2:
                raise StreamUnavailable("away")
            return Head(self.progress.last, self.progress.stream)

    archive = NowAndThen()
    async with world() as here:
        here.changes._progress = archive
        async with watched(here) as reasons:
            assert await here.kept("items/lot")
            await eventually(lambda: archive.heads >= 8)
            assert (here.changes._missed, reasons) == (1, [])


async def test_what_is_kept_and_damaged_is_asked_for_and_forgotten() -> None:
    async with world() as here:
        here.changes.on_stream_up()
        await here.in_step()
        assert await here.kept("items/lot")
        here.archive.value = b"after"
        assert await here.reads.unpacked("items/lot", b"\x1f\x8b no gzip") == b"after"
        assert await here.reads.get("items/lot") == b"after"
