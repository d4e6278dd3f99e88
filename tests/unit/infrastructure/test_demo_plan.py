"""Who sells and bids what, when, in the demo: decided without a network, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from api_gateway.changes.new_items import new_item
from api_gateway.contract.schemas import NewItemBody
from infrastructure.local import cli
from infrastructure.local.commands.platform.demo import summary
from infrastructure.local.demo.bidders import (
    MAXIMA_MAX,
    PATIENCE_S,
    SNIPE_S,
    Bidder,
    Character,
    LotView,
    Offer,
    Seat,
    crowd,
    seat_bidders,
)
from infrastructure.local.demo.gateway import Busy, Calm, NotTaken, read_answer, read_verdict, read_view
from infrastructure.local.demo.lots import FIRST, WARES, Kind, Lot, LotPlanner, Ware
from infrastructure.local.demo.room import Room, Tally
from shared.names import is_item_id, is_user_id

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOT = Lot("vase-1", Kind.RUSH, Ware("A vase", "blue", 100), worth=10_000, start_price=1_000, length_s=100)
OPEN = LotView("open", price=1_000, minimum=1_100, leader=None, bid_count=0, starts_s=0, ends_s=100, step=100)


def chance(seed: int = 1) -> random.Random:
    return random.Random(seed)


def seat(character: Character, limit: int = 10_000, **more: Any) -> Seat:
    return Seat(Bidder("ann", character), limit, **more)


class TestLots:
    def test_the_same_seed_makes_the_same_lots(self) -> None:
        assert LotPlanner(chance(), "t").first(30) == LotPlanner(chance(), "t").first(30)
        assert LotPlanner(chance(), "t").first(30) != LotPlanner(chance(2), "t").first(30)

    def test_a_dozen_shows_every_kind(self) -> None:
        lots = LotPlanner(chance(), "t").first(12)
        assert {lot.kind for lot in lots} == set(Kind)
        assert len({lot.ware for lot in lots}) == 12
        assert Kind.BRIEF not in {LotPlanner(chance(n), "t").next().kind for n in range(50)}

    def test_ids_are_ids_and_never_come_twice(self) -> None:
        planner = LotPlanner(chance(), "6b02b8c7")
        ids = [lot.item_id for lot in [*planner.first(len(FIRST)), *(planner.next() for _ in range(3 * len(WARES)))]]
        assert len(set(ids)) == len(ids)
        assert all(is_item_id(each) for each in ids)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_platform_takes_every_lot(self, seed: int) -> None:
        """By the gateway's own reading of a new item."""
        planner = LotPlanner(chance(seed), "t")
        for lot in [*planner.first(len(FIRST)), *(planner.next() for _ in range(60))]:
            terms = new_item(msgspec.json.decode(lot.body(NOW), type=NewItemBody)).terms
            assert terms.start_price == lot.start_price <= lot.worth
            assert (terms.reserve_price, terms.buy_now_price) == (lot.reserve, lot.buy_now)
            assert (terms.soft_close is not None) == (lot.kind in (Kind.RUSH, Kind.LADDER, Kind.RESERVE))

    def test_amounts_are_written_in_the_currency_of_the_lot(self) -> None:
        bowl = replace(LOT, ware=Ware("A bowl", "", 100, "JPY"))
        assert json.loads(LOT.body(NOW))["start_price"] == 10.0
        assert json.loads(bowl.body(NOW))["start_price"] == 1000


class TestCharacters:
    def test_nobody_bids_against_oneself_or_where_nothing_is_to_be_had(self) -> None:
        for character in Character:
            for view in (replace(OPEN, leader="ann"), replace(OPEN, status="scheduled"), replace(OPEN, status="sold")):
                assert all(seat(character).offer(view, now_s, chance()) is None for now_s in (0, 50, 99))

    def test_nobody_goes_above_the_limit(self) -> None:
        for character in Character:
            for seed in range(40):
                bidder = seat(character, limit=1_250)
                for now_s in (0, 50, 95):
                    offer = bidder.offer(OPEN, now_s, chance(seed))
                    assert offer is None or max(offer.amount or 0, offer.maximum or 0) <= 1_250
                assert bidder.offer(replace(OPEN, minimum=1_251), 95, chance(seed)) is None

    def test_early_birds_jump_and_fly(self) -> None:
        bird = seat(Character.EARLY_BIRD)
        amounts = {offer.amount or 0 for seed in range(40) if (offer := bird.offer(OPEN, 10, chance(seed)))}
        assert min(amounts) == 1_100 < max(amounts)
        assert bird.offer(OPEN, 41, chance()) is None

    def test_incrementalists_bid_the_least_and_take_their_time(self) -> None:
        one = seat(Character.INCREMENTALIST)
        assert one.offer(OPEN, 10, chance()) == Offer(1_100)
        one.noted(Offer(1_100), 10)
        assert one.offer(OPEN, 10 + PATIENCE_S - 0.1, chance()) is None
        assert one.offer(OPEN, 10 + PATIENCE_S, chance()) == Offer(1_100)

    def test_incrementalists_warm_up(self) -> None:
        one = seat(Character.INCREMENTALIST)
        dear = replace(OPEN, price=7_900, minimum=8_000)
        assert [one.offer(dear, now_s, chance()) is not None for now_s in (0, 50, 99)] == [False, False, True]

    def test_proxy_bidders_leave_a_maximum_and_raise_it_once(self) -> None:
        one = seat(Character.PROXY, enters=0.3)
        assert one.offer(OPEN, 10, chance()) is None
        first = one.offer(OPEN, 30, chance())
        assert first == Offer(maximum=8_000)
        one.noted(first, 30)
        second = one.offer(OPEN, 31, chance())
        assert second == Offer(maximum=10_000)
        one.noted(second, 31)
        assert one.maxima == MAXIMA_MAX
        assert one.offer(OPEN, 32, chance()) is None

    def test_snipers_wait_for_the_last_seconds(self) -> None:
        one = seat(Character.SNIPER)
        assert one.offer(OPEN, 100 - SNIPE_S - 0.1, chance()) is None
        late = one.offer(OPEN, 100 - SNIPE_S, chance())
        assert late is not None
        assert late.amount is not None
        assert late.amount > OPEN.minimum
        assert one.offer(OPEN, 100, chance()) is None
        assert one.offer(replace(OPEN, ends_s=None), 99, chance()) is None

    def test_whoever_wants_it_now_buys_it(self) -> None:
        one = seat(Character.SNIPER, wants_now=True, limit=12_000)
        view = replace(OPEN, buy_now=12_000)
        assert one.offer(view, 10, chance()) is None
        assert one.offer(view, 50, chance()) == Offer(12_000)

    def test_nobody_buys_by_accident(self) -> None:
        view = replace(OPEN, buy_now=1_150)
        for seed in range(40):
            offer = seat(Character.EARLY_BIRD).offer(view, 10, chance(seed))
            assert offer is not None
            assert offer.amount is not None
            assert offer.amount < 1_150

    def test_a_crowd_has_names_of_its_own_and_all_characters(self) -> None:
        people = crowd(100)
        assert len({each.user_id for each in people}) == 100
        assert all(is_user_id(each.user_id) for each in people)
        assert {each.character for each in crowd(5)} == set(Character)

    @pytest.mark.parametrize("count", [2, 5, 24])
    def test_seats(self, count: int) -> None:
        for seed in range(30):
            for kind in Kind:
                lot = replace(LOT, kind=kind, buy_now=12_000 if kind is Kind.BUY_NOW else None)
                seats = seat_bidders(lot, crowd(count), chance(seed))
                assert 2 <= len(seats) <= 7
                assert len({each.bidder for each in seats}) == len(seats)
                if kind is Kind.BUY_NOW:
                    assert max(each.limit for each in seats) >= 12_000
                if kind is Kind.LADDER and count == 24:
                    assert sum(each.bidder.character is Character.PROXY for each in seats) >= 2


class TestRoom:
    def room(self, lots: int = 3) -> Room:
        return Room(LotPlanner(chance(), "t"), crowd(24), lots=lots, chance=chance())

    def filled(self, lots: int = 3) -> Room:
        room = self.room(lots)
        for lot in room.wanted:
            room.opened(lot)
            room.seen(lot.item_id, OPEN)
        return room

    def test_a_lot_that_is_over_is_followed_by_another(self) -> None:
        room = self.filled()
        gone = room.open_ids[0]
        over = room.seen(gone, replace(OPEN, status="sold"))
        assert over is not None
        assert over.item_id == gone
        assert (len(room.open_ids), len(room.wanted)) == (2, 1)
        assert room.seen(gone, replace(OPEN, status="sold")) is None
        assert (room.tally.opened, room.tally.ended) == (3, Counter(sold=1))

    def test_a_lot_that_is_not_taken_or_got_lost_is_replaced(self) -> None:
        room = self.room()
        room.refused(room.wanted[0], "ITEM_EXISTS")
        assert len(room.wanted) == 3
        room = self.filled()
        room.lost(room.open_ids[0], "ITEM_NOT_FOUND")
        room.lost("never-there", "ITEM_NOT_FOUND")
        assert (len(room.open_ids), len(room.wanted)) == (2, 1)

    def test_turns_go_to_all_lots_and_more_of_them_where_the_end_is_near(self) -> None:
        room = self.filled()
        first, second, third = room.open_ids
        room.seen(third, replace(OPEN, bid_count=3, ends_s=1_000))
        room.seen(second, replace(OPEN, bid_count=3, ends_s=25))
        room.seen(first, replace(OPEN, bid_count=3, ends_s=1_000))
        turns = Counter(turn.lot.item_id for _ in range(600) if (turn := room.next_turn(8.0)))
        assert set(turns) <= {first, second, third}
        assert turns[second] > turns[first] + turns[third]

    def test_nobody_bids_where_nothing_is_known_or_open(self) -> None:
        room = self.room()
        assert room.next_turn(0) is None
        for lot in room.wanted:
            room.opened(lot)
        assert room.next_turn(0) is None
        for item_id in room.open_ids:
            room.seen(item_id, replace(OPEN, status="scheduled"))
        assert room.next_turn(0) is None

    def test_an_answer_changes_what_others_see(self) -> None:
        room = self.filled(1)
        turn = room.next_turn(5)
        assert turn is not None
        room.bid_answered(turn, code=None, price=5_000, minimum=5_100, leads=True)
        for _ in range(50):
            other = room.next_turn(5)
            assert other is None or (other.seat is not turn.seat and (other.offer.amount or 5_100) >= 5_100)
        room.bid_answered(turn, code="TOO_LOW", price=4_000, minimum=4_100, leads=False)
        assert room.tally.accepted == 1
        assert room.tally.refused == Counter(TOO_LOW=1)
        assert room.tally.bids_of == Counter({turn.lot.item_id: 1})

    def test_a_whole_demo_in_thought_sells_and_never_stands_still(self) -> None:
        """The rules of the platform, very much simplified, and an hour that takes no time."""
        room = self.room(6)
        views: dict[str, LotView] = {}
        quiet_s = 0.0
        for second in range(1_800):
            for lot in room.wanted:
                room.opened(lot)
                ends_s = second + lot.starts_in_s + lot.length_s
                views[lot.item_id] = LotView(
                    "open", lot.start_price, lot.start_price, None, 0, second, ends_s, max(1, lot.worth // 80)
                )
                room.seen(lot.item_id, views[lot.item_id])
            quiet_s += 1
            for _ in range(2):
                turn = room.next_turn(second)
                if turn is None:
                    continue
                quiet_s = 0
                room.bid_made(turn, second)
                view = views[turn.lot.item_id]
                price = turn.offer.amount or view.minimum
                assert price >= view.minimum
                room.bid_answered(turn, code=None, price=price, minimum=price + view.step, leads=True)
                views[turn.lot.item_id] = replace(
                    view, price=price, minimum=price + view.step, leader=turn.seat.bidder.user_id, bid_count=1
                )
            assert quiet_s < 60
            for item_id in room.open_ids:
                if (views[item_id].ends_s or 0) <= second:
                    room.seen(item_id, replace(views[item_id], status="sold"))
        assert room.tally.ended["sold"] >= 15
        assert room.tally.accepted > 500


class TestAnswers:
    def test_a_lot(self) -> None:
        body = {
            "status": "open",
            "current_bid": 10.25,
            "min_next_bid": 10.5,
            "highest_bidder_id": "ann",
            "bid_count": 3,
            "start_time": "1970-01-01T00:00:10.000000Z",
            "end_time": "1970-01-01T00:01:50.500000Z",
            "buy_now_price": 99,
            "buy_now_available": False,
            "suggested_bids": [10.5, 10.75, 11],
        }
        view = read_view(LOT, read_answer(200, json.dumps(body).encode(), {}))
        assert view == LotView("open", 1_025, 1_050, "ann", 3, 10.0, 110.5, 25, None)
        body |= {"end_time": None, "buy_now_available": True, "suggested_bids": []}
        view = read_view(LOT, read_answer(200, json.dumps(body).encode(), {}))
        assert (view.ends_s, view.buy_now, view.step) == (None, 9_900, 1)

    def test_verdicts(self) -> None:
        accepted = {"success": True, "current_bid": 10.25, "min_next_bid": 10.26, "is_highest": True}
        assert read_verdict(LOT, read_answer(201, json.dumps(accepted).encode(), {})).code is None
        refused = accepted | {"success": False, "code": "TOO_LOW", "is_highest": False}
        verdict = read_verdict(LOT, read_answer(200, json.dumps(refused).encode(), {}))
        assert (verdict.code, verdict.price, verdict.minimum, verdict.leads) == ("TOO_LOW", 1_025, 1_026, False)

    @pytest.mark.parametrize(
        ("status", "headers", "wait_s"),
        [(429, {"retry-after": "7"}, 7), (503, {}, 0), (500, {}, 0), (502, {"retry-after": "soon"}, 0)],
    )
    def test_what_may_work_later(self, status: int, headers: dict[str, str], wait_s: float) -> None:
        with pytest.raises(Busy) as busy:
            read_answer(status, b'{"code":"OVERLOADED"}', headers)
        assert (busy.value.code, busy.value.retry_after_s) == ("OVERLOADED", wait_s)

    @pytest.mark.parametrize(
        ("status", "body", "code"),
        [(409, b'{"code":"ITEM_EXISTS"}', "ITEM_EXISTS"), (404, b"<html>", "HTTP_404"), (200, b"\xff", "HTTP_200")],
    )
    def test_what_will_not(self, status: int, body: bytes, code: str) -> None:
        with pytest.raises(NotTaken, match=code):
            read_answer(status, body, {})

    def test_waits_grow_and_end_with_the_first_answer(self) -> None:
        calm = Calm(chance(), 0)
        assert calm.wait_s(0) == 0
        waits = []
        now_s = 0.0
        for _ in range(10):
            calm.failed(Busy("X"), now_s)
            waits.append(calm.wait_s(now_s))
            # What was asked before and fails meanwhile does not make it longer.
            calm.failed(Busy("X"), now_s + waits[-1] / 2)
            assert calm.wait_s(now_s) == waits[-1]
            now_s += waits[-1]
        assert 0.25 <= waits[0] <= 0.5
        assert 15 <= waits[-1] <= 30
        calm.succeeded(now_s)
        calm.failed(Busy("X", retry_after_s=9), now_s)
        assert 9.25 <= calm.wait_s(now_s) <= 9.5


class TestCommand:
    def test_without_a_platform_it_says_what_to_do(self, tmp_path: Any) -> None:
        result = CliRunner().invoke(cli.main, ["demo", "--data-dir", str(tmp_path)])
        assert result.exit_code == 2
        assert "No platform is up" in result.output
        assert "bidding up" in result.output

    def test_summary(self) -> None:
        tally = Tally(opened=3, accepted=7)
        tally.refused.update({"TOO_LOW": 2, "CLOSED": 1})
        tally.ended.update({"sold": 1})
        tally.bids_of.update({"vase": 5, "bowl": 2})
        tally.troubles.update({"OVERLOADED": 4})
        text = summary(tally, 2, 12.4)
        assert "7 bids accepted in 12 s, 3 not (2 TOO_LOW, 1 CLOSED)." in text
        assert "3 lots opened, 1 over (1 sold), 2 still going." in text
        assert "The platform was busy, away or unwilling (4 OVERLOADED)." in text
        assert "Most wanted: vase, 5 bids." in text
        quiet = summary(Tally(), 0, 0)
        assert "Most wanted" not in quiet
        assert "busy" not in quiet
