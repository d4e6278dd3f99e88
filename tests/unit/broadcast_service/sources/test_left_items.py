"""The archive as broadcasters ask it: seldom while it does not answer, few questions at once, and no "no" twice."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from broadcast_service.sources.left_items import ASKING_MAX, KEPT_MAX, ArchiveAway, LeftItems, Standings
from shared.archive_reads.origin import encode_state
from shared.domain.errors import Unavailable
from shared.messages import AnyEvent, BidVoided
from tests.unit.broadcast_service.builders import ITEM, item
from tests.waiting import eventually


class Archive:
    """Has one closed item, and hangs or fails as told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        await self.may_answer.wait()
        if self.fails:
            raise Unavailable("it does not answer")
        return encode_state(item(1)) if key == f"states/{ITEM}" else None

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]:
        return []

    async def voids(self, item_id: str) -> list[BidVoided]:
        return []

    async def bidders(self, item_id: str, users: Collection[str]) -> set[str]:
        return set(users)


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def left(archive: Archive) -> LeftItems:
    return LeftItems(archive, archive)


async def outcomes(*asked: Any) -> list[Any]:
    return [type(outcome) for outcome in await asyncio.gather(*asked, return_exceptions=True)]


async def test_an_item_has_the_epoch_of_its_shard(left: LeftItems) -> None:
    found = await left.find(ITEM, 7)
    assert found is not None
    assert found.state.epoch == 7


async def test_an_archive_that_does_not_answer_is_asked_once_in_a_while(
    archive: Archive,
) -> None:
    left = LeftItems(archive, archive, silent_s=0.5)
    archive.fails = True
    assert await outcomes(*(left.find(f"x-{n}", 1) for n in range(100))) == [ArchiveAway] * 100
    assert len(archive.asked) <= ASKING_MAX
    assert (
        await outcomes(left.find(ITEM, 1), left.newest_events(ITEM, 1), left.standings(ITEM, ["ann"]))
        == [ArchiveAway] * 3
    )

    archive.asked.clear()
    archive.may_answer.clear()
    await asyncio.sleep(0.5)
    probes = [asyncio.create_task(left.find(f"y-{n}", 1)) for n in range(50)]
    await eventually(lambda: sum(probe.done() for probe in probes) == 49)
    assert len(archive.asked) == 1, "one question finds out"
    archive.fails = False
    archive.may_answer.set()
    await asyncio.gather(*probes, return_exceptions=True)
    assert await left.find(ITEM, 1) is not None


async def test_it_is_asked_again_however_often_it_did_not_answer(archive: Archive) -> None:
    left = LeftItems(archive, archive, silent_s=0.0)
    archive.fails = True
    for asked in range(1, 5):
        with pytest.raises(ArchiveAway):
            await left.find(ITEM, 1)
        assert len(archive.asked) == asked
    archive.fails = False
    assert await left.find(ITEM, 1) is not None
    archive.may_answer.clear()
    finds = [asyncio.create_task(left.find(ITEM, 1)) for _ in range(2)]
    await eventually(lambda: len(archive.asked) == 7)
    archive.may_answer.set()
    assert None not in await asyncio.gather(*finds), "it answers: several may ask at a time"


def test_an_item_that_is_closed_meanwhile_is_no_longer_taken_for_none(left: LeftItems) -> None:
    async def ask() -> None:
        left._remember(ITEM, is_closed=False)
        assert left._is_unknown(ITEM)
        left._remember(ITEM, is_closed=True)
        assert not left._is_unknown(ITEM)

    asyncio.run(ask())


async def test_a_no_is_kept_for_a_while(left: LeftItems, archive: Archive) -> None:
    for _ in range(3):
        assert await left.find("unknown", 1) is None
        assert await left.find(ITEM, 1) is not None
    assert archive.asked == ["states/unknown", *[f"states/{ITEM}"] * 3]
    for number in range(KEPT_MAX):
        await left.find(f"x-{number}", 1)
    archive.asked.clear()
    await left.find("unknown", 1)
    assert archive.asked == ["states/unknown"], "the oldest is forgotten"


async def test_few_questions_at_once_and_none_waits_that_has_live_items_behind_it(
    left: LeftItems, archive: Archive
) -> None:
    archive.may_answer.clear()
    finds = [asyncio.create_task(left.find(f"x-{n}", 1)) for n in range(20)]
    bidders = [asyncio.create_task(left.standings(ITEM, ["ann"])) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert len(archive.asked) == 2 * ASKING_MAX
    assert sum(task.done() for task in bidders) == 20 - ASKING_MAX
    archive.may_answer.set()
    assert await outcomes(*finds) == [type(None)] * 20
    assert sorted(map(str, await outcomes(*bidders))) == sorted(
        [str(ArchiveAway)] * (20 - ASKING_MAX) + [str(Standings)] * ASKING_MAX
    )
