"""Shards that rest, by a clock of the test."""

from __future__ import annotations

import random

import pytest

from api_gateway.engine.relay.resting import RestingShards


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resting(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> RestingShards:
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    return RestingShards(first_s=1.0, most_s=4.0, clock=clock)


def test_pauses_double_for_each_shard_by_itself(resting: RestingShards, clock: Clock) -> None:
    for pause_s in (1.0, 2.0, 4.0, 4.0):
        resting.failed({"a": ValueError("x")})
        clock.now_s += pause_s - 0.01
        assert resting.is_resting("a")
        clock.now_s += 0.01
        assert not resting.is_resting("a")
    resting.failed({"b": ValueError("y")})
    clock.now_s += 1.0
    assert not resting.is_resting("b"), "it has failed once"


def test_who_succeeds_begins_with_the_first_pause_again(resting: RestingShards, clock: Clock) -> None:
    for _ in range(3):
        resting.failed({"a": ValueError("x")})
    resting.succeeded(["a", "never failed"])
    assert not resting.is_resting("a")
    assert resting.text is None
    resting.failed({"a": ValueError("x")})
    clock.now_s += 1.0
    assert not resting.is_resting("a")


def test_it_tells_which_failures_are_new(resting: RestingShards, clock: Clock) -> None:
    assert resting.failed({"a": ValueError("x")}) == "shard a: ValueError: x"
    assert resting.failed({"a": ValueError("x")}) is None
    clock.now_s += 60.0
    assert resting.failed({"a": ValueError("x")}) is None, "it has not succeeded meanwhile"
    assert resting.failed({"a": ValueError("x"), "b": KeyError("y")}) == "shard b: KeyError: 'y'"
    resting.succeeded(["a"])
    assert resting.failed({"a": ValueError("x"), "c": ValueError("z")}) == "shard a: ValueError: x; 1 more fail, too"


def test_it_tells_what_is_wrong(resting: RestingShards) -> None:
    assert resting.text is None
    resting.failed({"a": ValueError("x"), "b": KeyError("y")})
    assert resting.text == "shard a: ValueError: x; 1 more fail, too"
    resting.succeeded(["a"])
    assert resting.text == "shard b: KeyError: 'y'"
    resting.failed({"b": ValueError("z")})
    assert resting.text == "shard b: ValueError: z"


def test_shards_that_are_no_longer_ours_are_forgotten(resting: RestingShards) -> None:
    resting.failed({"a": ValueError("x"), "b": KeyError("y")})
    resting.keep(["b", "c"])
    assert not resting.is_resting("a")
    assert resting.is_resting("b")
    assert resting.text == "shard b: KeyError: 'y'"
