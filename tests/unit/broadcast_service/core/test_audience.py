"""Numbers of viewers: own viewers, those of other broadcasters, and how both are told."""

from __future__ import annotations

import asyncio
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broadcast_service.core import audience as module
from broadcast_service.core.audience import ITEMS_PER_MESSAGE, SUBJECT, Audience
from broadcast_service.sources.audience_source import AudienceSource

PERIOD_S = 2.0


def tell(sender: Audience, receiver: Audience, now_s: float, **counts: int) -> None:
    for data in sender.announce(counts.items()):
        assert receiver.hear(data, now_s)


@pytest.fixture
def here() -> Audience:
    return Audience("here", PERIOD_S)


@pytest.fixture
def there() -> Audience:
    return Audience("there", PERIOD_S)


def test_alone_the_own_count_is_exact(here: Audience) -> None:
    assert here.viewers("vase", 3, 0.0) == (3, True)


def test_counts_of_others_are_added_and_make_it_inexact(here: Audience, there: Audience) -> None:
    tell(there, here, 0.0, vase=4, lamp=1)
    tell(Audience("elsewhere", PERIOD_S), here, 0.0, vase=2)
    assert here.viewers("vase", 3, 0.0) == (9, False)
    assert here.viewers("lamp", 0, 0.0) == (1, False)
    assert here.viewers("other", 5, 0.0) == (5, True)
    tell(there, here, 2.0, vase=1)
    assert here.viewers("vase", 3, 2.0) == (6, False)
    assert here.viewers("lamp", 0, 2.0) == (0, True), "nobody there watches it any more"


def test_the_own_announcement_comes_back_and_does_not_count(here: Audience) -> None:
    tell(here, here, 0.0, vase=4)
    assert here.viewers("vase", 4, 0.0) == (4, True)


def test_who_is_silent_for_three_periods_is_gone(here: Audience, there: Audience) -> None:
    tell(there, here, 0.0, vase=4)
    assert here.viewers("vase", 1, 6.0) == (5, False)
    assert here.viewers("vase", 1, 6.1) == (1, True)
    here.forget_silent(6.1)
    assert here.viewers("vase", 1, 6.0) == (1, True)


def test_many_items_are_told_in_several_messages(here: Audience, there: Audience) -> None:
    counts = {f"item-{number}": 1 for number in range(2 * ITEMS_PER_MESSAGE + 1)}
    messages = there.announce(counts.items())
    assert len(messages) == 3
    assert max(map(len, messages)) < 500_000
    for data in messages:
        here.hear(data, 0.0)
    assert here.viewers(f"item-{2 * ITEMS_PER_MESSAGE}", 0, 0.0) == (1, False)


def test_good_bye_takes_all_counts_back(here: Audience, there: Audience) -> None:
    tell(there, here, 0.0, vase=4)
    tell(there, here, 0.1)
    assert here.viewers("vase", 1, 0.1) == (1, True)
    assert there.announce([]) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b"[1]", b'{"v":2,"from":"x","counts":{}}', b'{"v":1,"from":"x","counts":{"vase":-1}}'],
)
def test_what_cannot_be_read_changes_nothing(here: Audience, data: bytes) -> None:
    assert not here.hear(data, 0.0)
    assert here.viewers("vase", 1, 0.0) == (1, True)


def test_what_is_remembered_is_bounded(here: Audience, there: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 2)
    tell(there, here, 0.0, a=1, b=1, c=1)
    assert [here.viewers(item, 0, 0.0).viewers for item in "abc"] == [1, 1, 0]
    tell(there, here, 0.0, b=5)
    tell(there, here, 0.0, b=5, c=2)
    assert [here.viewers(item, 0, 0.0).viewers for item in "abc"] == [0, 5, 2]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["b", "c"]),
            st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(1, 9)),
            st.sampled_from([0.5, 1.0, 2.0]),
        ),
        max_size=30,
    )
)
def test_whatever_is_told_the_sum_is_what_was_told_last(steps: list[tuple[str, dict[str, int], float]]) -> None:
    here = Audience("a", PERIOD_S)
    others = {name: Audience(name, PERIOD_S) for name in "bc"}
    last: dict[str, tuple[float, dict[str, int]]] = {}
    now_s = 0.0
    for sender, counts, pause_s in steps:
        now_s += pause_s
        tell(others[sender], here, now_s, **counts)
        last[sender] = (now_s, counts)
        here.forget_silent(now_s)
        for item in "xyz":
            heard = [told for at_s, told in last.values() if now_s - at_s <= 3 * PERIOD_S]
            expected = sum(told.get(item, 0) for told in heard)
            assert here.viewers(item, 1, now_s) == (1 + expected, expected == 0)


class Bus:
    """Core NATS without a network."""

    def __init__(self) -> None:
        self.is_up = True
        self.published: list[bytes] = []

    async def publish(self, subject: str, data: bytes) -> None:
        assert subject == SUBJECT
        if self.is_up:
            self.published.append(data)


async def test_a_round_tells_the_others_and_then_the_viewers(here: Audience, there: Audience) -> None:
    bus, told, counts = Bus(), [], {"vase": 3, "lamp": 1}

    def note(item_id: str, viewers: int, *, exact: bool) -> None:
        told.append((item_id, viewers, exact))

    source = AudienceSource(here, counts.items, note, bus, clock=lambda: 0.0)
    tell(there, here, 0.0, vase=4)
    await source.round()
    assert [json.loads(data) for data in bus.published] == [{"v": 1, "from": "here", "counts": counts}]
    assert told == [("vase", 7, False), ("lamp", 1, True)]
    bus.is_up = False
    await source.round()
    assert told[-1] == ("lamp", 1, False), "others may have some, and cannot say so"


async def test_it_says_good_bye_at_the_end() -> None:
    bus, rounds = Bus(), asyncio.Event()
    here = Audience("here", 0.001)
    source = AudienceSource(here, {"vase": 3}.items, lambda *_, **__: rounds.set(), bus, clock=lambda: 0.0)
    running = asyncio.create_task(source.run())
    async with asyncio.timeout(5):
        await rounds.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert json.loads(bus.published[-1])["counts"] == {"vase": 0}
