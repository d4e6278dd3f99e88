"""Single scripts of the pages that need no platform: time, texts for screen readers, drawing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.browsing import Street, in_a_browser

pytestmark = in_a_browser


async def evaluated(street: Street, script: str, argument: Any = None) -> Any:
    """Run `script`, a function, on one of the pages, and return its result."""
    reader = await street.person("reader")
    await reader.open("/sell")
    return await reader.page.evaluate(script, argument)


async def test_a_page_that_is_hidden_while_it_waits_for_a_frame_draws_all_the_same(street: Street) -> None:
    drawn = await evaluated(
        street,
        """async () => {
          const { oncePerFrame } = await import("/static/js/lib/dom.js");
          window.requestAnimationFrame = () => 1; // As in a page that is hidden now: the frame never comes.
          let count = 0;
          let told;
          const late = new Promise((resolve) => setTimeout(resolve, 60_000));
          const draw = oncePerFrame(() => {
            count += 1;
            told();
          });
          for (const _round of [1, 2]) {
            const done = new Promise((resolve) => { told = resolve; });
            draw();
            draw();
            await Promise.race([done, late]);
          }
          return count;
        }""",
    )
    assert drawn == 2, "once for each round, and again after that"


async def test_a_fast_auction_is_told_in_peace_and_warnings_are_never_lost(street: Street) -> None:
    reader = await street.person("reader")
    await reader.page.clock.install(time=0)
    await reader.open("/sell")
    # From now on the test controls the time.
    await reader.page.clock.pause_at(100)
    await reader.page.evaluate(
        """async () => {
          const { announcer } = await import("/static/js/lib/dom.js");
          const node = document.createElement("p");
          window.heard = [];
          new MutationObserver(() => window.heard.push(node.textContent)).observe(node, { childList: true });
          window.announce = announcer(node);
        }"""
    )

    async def heard_after(call: str, milliseconds: int) -> list[str]:
        await reader.page.evaluate(call)
        await reader.page.clock.run_for(milliseconds)
        heard: list[str] = await reader.page.evaluate("window.heard.splice(0)")
        return heard

    assert await heard_after("announce('one'); announce('two'); announce('three')", 3_000) == ["one"]
    assert await heard_after("0", 2_000) == ["three"]
    assert await heard_after("announce('15 seconds are left.', { atOnce: true }); announce('four')", 3_000) == [
        "15 seconds are left."
    ]
    # Twenty prices a second for two minutes: even an announcement every four seconds would be too many.
    flood = "let n = 0; window.flood = setInterval(() => announce(`price ${n++}`), 50)"
    heard = await heard_after(flood, 120_000)
    assert 6 <= len(heard) <= 12
    assert await heard_after("clearInterval(window.flood)", 60_000) == ["price 2399"]
    assert await heard_after("announce('five'); announce('six')", 5_000) == ["five", "six"]


async def test_a_slow_answer_moves_no_clock(street: Street) -> None:
    quick, slow = await evaluated(
        street,
        """async () => {
          const { noteServerDate, serverNow } = await import("/static/js/lib/clock.js?alone");
          const now = performance.now();
          const header = (aheadMs) => new Date(serverNow() + aheadMs).toUTCString();
          const moved = (aheadMs, tookMs) => {
            const before = serverNow();
            noteServerDate(header(aheadMs), now - tookMs, now);
            return Math.abs(serverNow() - before);
          };
          const slow = moved(0, 6000);
          return [moved(60_000, 20), slow];
        }""",
    )
    assert slow < 1_000, "the time was told at the end of six seconds, and not in the middle"
    assert 58_000 < quick < 62_000, "an answer at once that says something else is believed"


async def test_a_state_knows_when_it_began(street: Street) -> None:
    moments = await evaluated(
        street,
        """async () => {
          const { Register, stateOf } = await import("/static/js/feed/feed.js");
          const register = new Register();
          const told = (message) => {
            register.offer(stateOf({ epoch: 1, current_bid: 5, ...message }));
            return register.state.updated_at;
          };
          return [
            told({ seq: 1, updated_at: "2026-03-01T12:00:00Z" }),
            told({ type: "paused", seq: 2, timestamp: "2026-03-01T12:30:00Z" }),
            told({ type: "snapshot", seq: 3, updated_at: "2026-03-01T12:45:00Z" }),
            told({ type: "bid", seq: 1, timestamp: "2026-03-01T12:00:00Z" }),
          ];
        }""",
    )
    assert [moment[11:16] for moment in moments] == ["12:00", "12:30", "12:45", "12:45"]


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("onmessage", {"data": '{"type":"error","code":"TOO_MANY_OPERATIONS","message":"wait"}'}),
        ("onclose", {"code": 4529}),
    ],
)
async def test_who_is_told_to_ask_for_less_comes_back_later(street: Street, heard: str, said: dict[str, Any]) -> None:
    waits, shown, states = await evaluated(
        street,
        """async ([heard, said]) => {
          const { Connection } = await import("/static/js/feed/connection.js");
          let socket;
          window.WebSocket = class {
            constructor() { socket = this; }
            close() {}
          };
          const [waits, shown, states] = [[], [], []];
          window.setTimeout = (_call, milliseconds) => waits.push(milliseconds);
          Math.random = () => 0.5;
          new Connection(() => "ws://feed", {
            onFrame: (frame) => shown.push(frame.type),
            onState: (state) => states.push(state),
          }).start();
          socket.onmessage({ data: '{"type":"connected","heartbeat_s":5}' });
          waits.length = 0;
          socket[heard](said);
          return [waits, shown, states];
        }""",
        [heard, said],
    )
    assert waits == [8_000], "half a second, doubled four times"
    assert shown == ["connected"]
    assert states == ["connecting", "live", "waiting"]


async def test_the_colours_of_bidders_do_not_grow_for_ever(street: Street) -> None:
    tones = await evaluated(
        street,
        """async () => {
          const { Tones } = await import("/static/js/bidder/names.js");
          const tones = new Tones();
          const first = Array.from({ length: 9 }, (_unused, index) => tones.of(`bidder-${index}`));
          for (let index = 9; index < 501; index += 1) tones.of(`bidder-${index}`);
          return [first, tones.of("bidder-500"), tones.of("bidder-0")];
        }""",
    )
    assert tones == [[0, 1, 2, 3, 4, 5, 6, 7, 0], 500 % 8, 501 % 8], "the first one was forgotten, the last was not"


@pytest.mark.parametrize(
    ("low", "high", "least"),
    [(100, 285, 0.01), (0.01, 0.46, 0.01), (1, 1, 0.01), (7, 9, 1), (999_999, 1_000_001, 0.01), (0.5, 0.53, 0.001)],
)
async def test_the_chart_marks_round_amounts(street: Street, low: float, high: float, least: float) -> None:
    marks: list[float] = await evaluated(
        street,
        """async ([low, high, least]) => {
          const { amountMarks } = await import("/static/js/item/scales.js");
          return amountMarks(low, high, 4, least);
        }""",
        [low, high, least],
    )
    assert marks[0] <= low < marks[-1]
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 7
    step = marks[1] - marks[0]
    assert step >= least * 0.999
    assert marks == pytest.approx([marks[0] + step * place for place in range(len(marks))])


REFUSALS = [
    "NOT_STARTED",
    "CLOSED",
    "SOLD",
    "PAUSED",
    "CANCELLED",
    "OWN_ITEM",
    "BLOCKED",
    "NOT_APPROVED",
    "LIMIT_EXCEEDED",
    "MAX_NOT_RAISED",
    "TOO_LOW",
]

# Changes to a valid form, and the field that must show an error (None: none).
TYPED: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"start_price": "0"}, None),
    ({"start_price": "1,234.50"}, None),
    ({"name": "  "}, "name"),
    ({"start_price": "1.234"}, "start_price"),
    ({"start_price": "-1"}, "start_price"),
    ({"currency": "JPY", "start_price": "10.50"}, "start_price"),
    ({"currency": "KWD", "start_price": "10.505"}, None),
    ({"start_price": "10", "reserve_price": "9.99"}, "reserve_price"),
    ({"reserve_price": "20", "buy_now_price": "19"}, "buy_now_price"),
    ({"increment": "flat", "flat_value": "0"}, "flat_value"),
    ({"increment": "percent", "percent_value": "2.5"}, None),
    ({"increment": "percent", "percent_value": "100.01"}, "percent_value"),
    ({"increment": "steps", "steps": [{"below": "", "increment": "5"}]}, None),
    ({"increment": "steps", "steps": [{"below": "9", "increment": ""}, {"below": "", "increment": "5"}]}, "steps"),
    ({"end": "length", "length_count": "1.5", "length_unit": "hours"}, "length_count"),
    ({"end": "at", "end_at": "2001-01-01T10:00"}, "end_at"),
    ({"start": "at", "start_at": ""}, "start_at"),
    ({"end": "none", "soft": "short"}, "soft"),
    ({"soft": "own", "trigger_min": "0", "extend_min": "5"}, "trigger_min"),
    ({"soft": "own", "trigger_min": "2", "extend_min": "5", "max_count": "0"}, "max_count"),
    ({"soft": "own", "trigger_min": "0,5", "extend_min": "5", "hard_min": "60"}, None),
    ({"seller_id": "a b"}, "seller_id"),
    ({"id": "a/b"}, "id"),
]


async def test_what_the_pages_say_and_refuse_by_themselves(street: Street) -> None:
    words: list[tuple[str, bool]] = await evaluated(
        street,
        """async (codes) => {
          const { wordsForVerdict, wordsForFailure } = await import("/static/js/bidding/verdicts.js");
          const { ApiError } = await import("/static/js/lib/api.js");
          const attempt = { bid: { user_id: "ada", amount: 5, bid_id: "b" }, led: false, price: 1 };
          const money = (amount) => `$${amount}`;
          const problem = (status, code) => wordsForFailure(new ApiError("as told", { status, code }), attempt, money);
          return [
            ...codes.map((code) => wordsForVerdict({ success: false, code, min_next_bid: 9 }, attempt, money)),
            problem(422, "KEY_REUSED"), problem(503, "OVERLOADED"), problem(503, "OUTCOME_UNKNOWN"),
          ].map(({ text, unsettled }) => [text, unsettled ?? false]);
        }""",
        REFUSALS,
    )
    texts = [text for text, _ in words]
    assert len(set(texts)) == len(REFUSALS) + 3
    assert not [text for text in texts if "was refused" in text or "as told" in text]
    assert [text for text, unsettled in words if unsettled] == texts[-1:]

    right = {"name": "Clock", "currency": "USD", "increment": "ebay", "end": "3600", "start": "now", "soft": "none"}
    refused: list[list[str]] = await evaluated(
        street,
        """async (forms) => {
          const { readDraft } = await import("/static/js/sell/terms.js");
          return forms.map((values) => [...readDraft(values, Date.now()).errors.keys()]);
        }""",
        [{**right, **changes} for changes, _ in TYPED],
    )
    for (changes, field), found in zip(TYPED, refused, strict=True):
        assert found == ([] if field is None else [field]), changes


async def test_a_fast_lots_offers_are_near_the_minimum_below_a_reserve_and_when_it_is_calm(street: Street) -> None:
    """Below a reserve an offer is a plain bid, which would be the price at once."""
    told: dict[str, Any] = await evaluated(
        street,
        """async () => {
          const { Offers } = await import("/static/js/bidding/offers.js");
          const real = performance.now.bind(performance);
          let at = 0;
          performance.now = () => at;
          const run = (reserve_met, isHeld, after) => {
            const offers = new Offers();
            let state;
            for (let count = 0; count <= 20; count += 1) {
              at = count * 250;
              const price = 100 + 10 * count;
              state = { bid_count: count, epoch: 1, current_bid: price, highest_bidder_id: "x", reserve_met };
              offers.note(state, "USD");
              offers.draw(state, { currency: "USD", minimum: state.current_bid + 10, isHeld: false });
            }
            at += after;
            return offers.draw(state, { currency: "USD", minimum: state.current_bid + 10, isHeld })[0];
          };
          try {
            return {
              fast: run(true, false, 0), held: run(true, true, 500), calm: run(true, true, 60_000),
              reserve: run(false, false, 0),
            };
          } finally {
            performance.now = real;
          }
        }""",
    )
    assert told["reserve"] == told["calm"] == 310
    assert told["fast"] > 400
    assert told["held"] > 400


async def test_what_counts_as_fast_and_as_a_mistake(street: Street) -> None:
    told: dict[str, Any] = await evaluated(
        street,
        """async () => {
          const { Pace } = await import("/static/js/bidding/pace.js");
          const { questionFor } = await import("/static/js/bidding/brake.js");
          const pace = new Pace();
          const paces = [];
          // Each second one bid of 250 more, but one that is far above; then a void, and nothing.
          [[0, 1000], [1000, 1250], [2000, 1500], [3000, 900_000], [4000, 900_250], [5000, 900_500]].forEach(
            ([at, price], count) => {
              pace.note({ bid_count: count, price, epoch: 1 }, at);
              paces.push(pace.isFast(at));
            },
          );
          const rise = pace.risePerSecond(5000);
          pace.note({ bid_count: 1, price: 1250, epoch: 1 }, 5100);
          paces.push(pace.isFast(5100), pace.isFast(9500));
          const ask = (units, leads, isMax, isOffered = false) =>
            questionFor({ units, least: 40_000, leads, isMax, isOffered }, "this", "that") !== null;
          const asked = [
            ask(40_000, false, false), ask(400_000, false, false), ask(400_001, false, false),
            ask(400_001, false, true),
            ask(41_000, true, false), ask(41_000, true, true), ask(41_000, true, true, true),
            questionFor({ units: 9_000, least: 10, leads: false, isMax: false, isOffered: false }, "", "") !== null,
            ask(199_999, false, false), ask(200_000, false, false),
            questionFor({ units: 2_500, least: 500, leads: false, decimals: 0 }, "", "") !== null,
          ];
          return { paces, rise, asked };
        }""",
    )
    assert told["paces"] == [False, False, False, True, True, True, True, False]
    assert 250 <= told["rise"] <= 320, "one bid far above the others does not count"
    assert told["asked"] == [False, True, True, True, True, False, True, False, False, True, True]


async def test_a_full_storage_brings_back_no_older_value(street: Street) -> None:
    told = await evaluated(
        street,
        """async () => {
          const { forgetAll, keep, recall } = await import("/static/js/lib/storage.js");
          keep("bidding.full", "older");
          let rest = "x".repeat(1 << 22);
          let filled = 0;
          for (; rest.length > 0; ) {
            try {
              localStorage.setItem(`fill-${filled}`, rest);
              filled += 1;
            } catch {
              rest = rest.slice(0, rest.length >> 1);
            }
          }
          keep("bidding.full", "newer ".repeat(100));
          const whileFull = recall("bidding.full");
          localStorage.clear();
          keep("bidding.full", "newest");
          const stored = localStorage.getItem("bidding.full");
          localStorage.setItem("bidding.full", "of another tab");
          const ofAnother = recall("bidding.full");
          forgetAll();
          return [whileFull, stored, ofAnother, recall("bidding.full")];
        }""",
    )
    assert told == ["newer " * 100, "newest", "of another tab", None]


async def test_stored_bids_that_are_damaged_are_passed_over(street: Street) -> None:
    told = await evaluated(
        street,
        """async () => {
          const { ledAt, rememberLead, stakedItems, stakeOf } = await import("/static/js/bidder/stakes.js");
          const found = [];
          const odd = '[null, 5, {"item": 7}, [], {"item": "lot", "user": "ann", "led": "x"}]';
          for (const text of ["{", "null", "5", "{}", '"x"', odd]) {
            localStorage.setItem("bidding.stakes", text);
            found.push(stakedItems("ann"), ledAt("lot", "ann"));
          }
          const stake = { user: "ann", max: "<img onerror=alert(1)>", led: { epoch: 1, seq: 1 } };
          const many = Array.from({ length: 5000 }, (_, n) => ({ item: `lot-${n}`, ...stake }));
          localStorage.setItem("bidding.stakes", JSON.stringify(many));
          rememberLead("new", "ann", { epoch: 1, seq: 1 });
          const kept = JSON.parse(localStorage.getItem("bidding.stakes")).length;
          return [found, kept, stakeOf("new", "ann").led];
        }""",
    )
    assert told == [[*[[], None] * 5, ["lot"], None], 200, {"epoch": 1, "seq": 1}]
