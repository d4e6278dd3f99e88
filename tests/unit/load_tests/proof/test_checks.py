"""The proof accepts a sound story and rejects every way in which one can be unsound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.proof.checks import AcceptedBid, Bid, ClientView, Evidence, PriceState, compare


def sound(count: int = 5, *, price_step: int = 7) -> Evidence:
    """A story in which ``count`` bids were accepted and everybody agrees."""
    bids = [Bid(1, seq, f"bid-{seq}", f"user-{seq % 3}", 100 + seq * price_step) for seq in range(1, count + 1)]
    price = bids[-1].amount if bids else 0
    state = PriceState(price=price, seq=count, epoch=1, bid_count=count)
    return Evidence(
        item_id="lot-1",
        clients=ClientView([AcceptedBid(bid.seq, bid.bid_id, bid.user_id, bid.amount) for bid in bids], refused=9),
        redis=state,
        archived_item=state,
        rows=bids,
        events=bids,
        versions=[(1, seq) for seq in range(count + 1)],
        archived_versions=[(1, seq) for seq in range(count + 1)],
        viewer_prices={"viewer-1": price, "viewer-2": price},
    )


def failed(evidence: Evidence) -> set[str]:
    return {check.name for check in compare(evidence).failed}


def clients(evidence: Evidence, **changes: object) -> Evidence:
    return replace(evidence, clients=replace(evidence.clients, **changes))  # type: ignore[arg-type]


def state(known: PriceState | None, **changes: int) -> PriceState:
    assert known is not None
    return replace(known, **changes)


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_a_sound_story_is_accepted(count: int) -> None:
    verification = compare(sound(count))
    assert verification.ok, str(verification)
    assert verification.counts["rows"] == count
    assert "checks hold" in str(verification)


def test_without_viewers_there_is_no_check_of_viewers() -> None:
    verification = compare(replace(sound(), viewer_prices=None))
    assert verification.ok
    assert "viewers_up_to_date" not in {check.name for check in verification.checks}


def test_rows_and_accepted_bids_may_come_in_any_order() -> None:
    story = sound()
    story = replace(story, rows=list(story.rows)[::-1])
    story = clients(story, accepted=list(story.clients.accepted)[::-1])
    assert compare(story).ok


def test_events_other_than_bids_take_a_seq_of_their_own() -> None:
    story = sound(3)
    bids = [replace(bid, seq=bid.seq + 1) if bid.seq > 1 else bid for bid in story.rows]
    told = [AcceptedBid(bid.seq, bid.bid_id, bid.user_id, bid.amount) for bid in bids]
    extended = replace(
        clients(story, accepted=told),
        rows=bids,
        events=bids,
        versions=[(1, seq) for seq in range(5)],
        archived_versions=[(1, seq) for seq in range(5)],
        redis=state(story.redis, seq=4),
        archived_item=state(story.archived_item, seq=4),
    )
    assert compare(extended).ok, str(compare(extended))


def test_automatic_bids_are_known_to_no_client_but_to_all_stores() -> None:
    story = sound(3)
    automatic = Bid(1, 4, "bid-3/proxy", "user-9", 500, "proxy")
    after = PriceState(price=500, seq=4, epoch=1, bid_count=3)
    with_proxy = replace(
        story,
        rows=[*story.rows, automatic],
        events=[*story.events, automatic],
        versions=[(1, seq) for seq in range(5)],
        archived_versions=[(1, seq) for seq in range(5)],
        redis=after,
        archived_item=after,
        viewer_prices={"viewer-1": 500},
    )
    assert compare(with_proxy).ok, str(compare(with_proxy))
    assert "postgres_equals_jetstream" in failed(replace(with_proxy, rows=story.rows))


Mutation = Callable[[Evidence], Evidence]

MUTATIONS: dict[str, tuple[Mutation, str]] = {
    "a row is lost": (lambda story: replace(story, rows=story.rows[1:]), "clients_in_postgres"),
    "the last row is lost": (lambda story: replace(story, rows=story.rows[:-1]), "highest_price_equal"),
    "a row is lost, seen from the stream": (
        lambda story: replace(story, rows=story.rows[1:]),
        "postgres_equals_jetstream",
    ),
    "an event is lost": (
        lambda story: replace(story, events=story.events[1:], versions=[story.versions[0], *story.versions[2:]]),
        "seq_gapless_in_jetstream",
    ),
    "an event is lost, seen by clients": (
        lambda story: replace(story, events=story.events[1:]),
        "clients_in_jetstream",
    ),
    "the last event is lost": (
        lambda story: replace(story, events=story.events[:-1], versions=story.versions[:-1]),
        "seq_gapless_in_jetstream",
    ),
    "an event too many": (lambda story: replace(story, versions=[*story.versions, (1, 6)]), "seq_gapless_in_jetstream"),
    "an event stands twice in the stream": (
        lambda story: replace(
            story, events=[*story.events, story.events[2]], versions=[*story.versions, story.versions[3]]
        ),
        "events_once",
    ),
    "two contents under one seq": (
        lambda story: replace(story, events=[*story.events, replace(story.events[0], bid_id="other")]),
        "events_once",
    ),
    "one bid accepted twice": (
        lambda story: replace(story, events=[*story.events, replace(story.events[0], seq=6, amount=999)]),
        "events_once",
    ),
    "a row twice": (lambda story: replace(story, rows=[*story.rows, story.rows[0]]), "rows_once"),
    "a bid id in two rows": (
        lambda story: replace(story, rows=[*story.rows, replace(story.rows[0], seq=6, amount=999)]),
        "rows_once",
    ),
    "a row of nobody": (
        lambda story: replace(story, rows=[*story.rows, Bid(1, 6, "ghost", "x", 999)]),
        "clients_in_postgres",
    ),
    "an event of nobody": (
        lambda story: replace(story, events=[*story.events, Bid(1, 6, "ghost", "x", 999)]),
        "clients_in_jetstream",
    ),
    "an acknowledged bid is nowhere": (
        lambda story: clients(story, accepted=[*story.clients.accepted, AcceptedBid(6, "lost", "x", 999)]),
        "counts_equal",
    ),
    "a bid under another seq than acknowledged": (
        lambda story: clients(
            story, accepted=[replace(story.clients.accepted[0], seq=99), *story.clients.accepted[1:]]
        ),
        "clients_in_postgres",
    ),
    "a bid of another bidder": (
        lambda story: replace(story, rows=[replace(story.rows[0], user_id="thief"), *story.rows[1:]]),
        "clients_in_postgres",
    ),
    "a bid at another amount": (
        lambda story: replace(story, events=[replace(story.events[0], amount=1), *story.events[1:]]),
        "clients_in_jetstream",
    ),
    "two bids at the same price": (
        lambda story: replace(
            story, rows=[story.rows[0], replace(story.rows[1], amount=story.rows[0].amount), *story.rows[2:]]
        ),
        "prices_rise_in_postgres",
    ),
    "the price falls in the stream": (
        lambda story: replace(
            story, events=[replace(story.events[0], amount=story.events[1].amount + 1), *story.events[1:]]
        ),
        "prices_rise_in_jetstream",
    ),
    "Redis shows another price": (
        lambda story: replace(story, redis=state(story.redis, price=1)),
        "highest_price_equal",
    ),
    "PostgreSQL's item shows another price": (
        lambda story: replace(story, archived_item=state(story.archived_item, price=1)),
        "highest_price_equal",
    ),
    "Redis counts another number of bids": (
        lambda story: replace(story, redis=state(story.redis, bid_count=4)),
        "counts_equal",
    ),
    "the archive lags": (
        lambda story: replace(story, archived_item=state(story.archived_item, seq=4)),
        "archived_up_to_date",
    ),
    "the archive is of another epoch": (
        lambda story: replace(story, archived_item=state(story.archived_item, epoch=2)),
        "archived_up_to_date",
    ),
    "Redis lost the item": (lambda story: replace(story, redis=None), "highest_price_equal"),
    "PostgreSQL lost the item": (lambda story: replace(story, archived_item=None), "archived_up_to_date"),
    "the archive lost an event that is no bid": (
        lambda story: replace(story, archived_versions=story.archived_versions[1:]),
        "seq_gapless_in_postgres",
    ),
    "the archive has an event that Redis does not know": (
        lambda story: replace(story, archived_versions=[*story.archived_versions, (1, 6)]),
        "seq_gapless_in_postgres",
    ),
    "an event went to the dead letters": (lambda story: replace(story, dead_letters=1), "no_dead_letters"),
    "a failure": (lambda story: clients(story, failures=1), "no_failures"),
    "an outcome that nobody knows": (lambda story: clients(story, unresolved=["bid-9"]), "outcomes_known"),
    "a viewer was shown an old price": (
        lambda story: replace(story, viewer_prices={"viewer-1": 1}),
        "viewers_up_to_date",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_unsound_story_is_rejected_by_the_check_that_is_about_it(name: str) -> None:
    mutate, check = MUTATIONS[name]
    assert check in failed(mutate(sound()))


def test_every_check_is_seen_to_fail_for_some_story() -> None:
    """A check that no mutation can trip would prove nothing."""
    tripped = {check for mutate, _ in MUTATIONS.values() for check in failed(mutate(sound()))}
    assert tripped == {check.name for check in compare(sound()).checks}


def test_a_redelivered_event_is_fine_where_a_fault_allows_it() -> None:
    mutate, _ = MUTATIONS["an event stands twice in the stream"]
    assert compare(replace(mutate(sound()), redelivery_allowed=True)).ok
    conflict, _ = MUTATIONS["two contents under one seq"]
    assert "events_once" in failed(replace(conflict(sound()), redelivery_allowed=True))


@given(count=st.integers(2, 12), victim=st.integers(0, 11), source=st.sampled_from(["rows", "events", "clients"]))
def test_the_loss_of_any_one_bid_in_any_one_place_is_noticed(count: int, victim: int, source: str) -> None:
    story, gone = sound(count), victim % count
    if source == "clients":
        kept = [bid for number, bid in enumerate(story.clients.accepted) if number != gone]
        story = clients(story, accepted=kept)
    elif source == "rows":
        story = replace(story, rows=[bid for number, bid in enumerate(story.rows) if number != gone])
    else:
        story = replace(story, events=[bid for number, bid in enumerate(story.events) if number != gone])
    assert not compare(story).ok


def test_the_statement_shows_the_numbers_and_names_a_few_of_many() -> None:
    story = sound(20)
    verification = compare(replace(story, rows=story.rows[6:]))
    text = str(verification)
    assert "lot-1: " in text
    assert "6 bids acknowledged but not in PostgreSQL as such (seq 1 bid-1, seq 2 bid-2, seq 3 bid-3, …)" in text
    price = next(check for check in compare(sound(5)).checks if check.name == "highest_price_equal")
    assert price.statement.startswith("Redis 1.35, clients 1.35")


def test_failures_are_told_with_their_reasons_the_most_frequent_first() -> None:
    reasons = {"HTTP 503": 2, "HTTP 429": 69, "no answer": 1, "HTTP 500": 1}
    found = compare(clients(sound(), failures=73, reasons=reasons))
    [check] = [check for check in found.checks if check.name == "no_failures"]
    assert not check.ok
    assert check.statement.endswith("73 answers were neither 201 nor a refusal: 69 HTTP 429, 2 HTTP 503, 1 no answer")
