"""The nemesis for minutes: everybody bids, operates and watches, parts fail two at once, round after round.

Each round has items of its own, one of each kind of terms. At its end everything is let go on, the items are judged and
forgotten, so that a run of hours takes no more memory than one of minutes. A violation does not end the run: what the
other rounds show says how often it comes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2 as httpx

from shared.redis_layout.keys import item_key
from tests.faults.rig.harness import FaultRun
from tests.faults.rig.history import History, violations
from tests.faults.rig.nemesis import Nemesis
from tests.faults.rig.proxy import FaultyProxy
from tests.waiting import eventually

logger = logging.getLogger(__name__)

_FINAL = (b"sold", b"unsold", b"cancelled")
_ENDED_WITHIN_S = 90.0

TERMS: Mapping[str, Mapping[str, Any]] = {
    "flat": {},
    "ladder": {"start_price": 1, "increment": {"kind": "ladder"}, "reserve_price": 50},
    # Half a percent: the price of a long round stays far below the largest amount.
    "percent": {"start_price": 5, "increment": {"kind": "percent", "value": 0.5}},
    "offered": {"seller_id": "user-0", "reserve_price": 100, "buy_now_price": 200},
    "late": {"duration_s": 25, "soft_close": {"trigger_s": 5, "extend_s": 5, "mode": "from_end", "max_count": 4}},
    "ending": {"duration_s": 20, "reserve_price": 5, "soft_close": {"trigger_s": 4, "extend_s": 3, "max_count": 5}},
    "withdrawn": {"increment": {"kind": "flat", "value": 0.25}},
}
"""One item of each in every round. The last one is cancelled in the end."""

SHORT_TERMS: Mapping[str, Mapping[str, Any]] = {
    **TERMS,
    "late": {**TERMS["late"], "duration_s": 10, "soft_close": {"trigger_s": 3, "extend_s": 2, "max_count": 2}},
    "ending": {**TERMS["ending"], "duration_s": 8, "soft_close": {"trigger_s": 2, "extend_s": 2, "max_count": 2}},
    "withdrawn": TERMS["withdrawn"],
}
"""The same for a round of seconds."""


class LineToRedis:
    """The line between one gateway and Redis: its answers are eaten, it is slow, or nobody can connect."""

    def __init__(self, proxy: FaultyProxy) -> None:
        self.name = "the line to Redis is bad"
        self._proxy = proxy
        self._eating: Any = None

    async def inject(self, chance: random.Random) -> None:
        """Spoil it, in one way or another."""
        how = chance.choice(("slow", "eats", "away"))
        if how == "slow":
            self._proxy.delay_s = chance.uniform(0.02, 0.3)
            self._proxy.cut()
            return
        self._eating = self._proxy.eating_answers() if how == "eats" else self._proxy.away()
        await self._eating.__aenter__()

    async def heal(self) -> None:
        """Restore the line; connections that waited for an answer are cut."""
        self._proxy.delay_s = 0.0
        if self._eating is not None:
            await self._eating.__aexit__(None, None, None)
            self._eating = None


class LongRun:
    """Rounds of one :class:`FaultRun` under one :class:`Nemesis`, and what they have shown so far.

    Args:
        round_s: how long parts fail in each round; judging comes on top.
        viewers: per item.
        terms: of the items of each round; the last one is cancelled in the end.
    """

    def __init__(
        self,
        run: FaultRun,
        nemesis: Nemesis,
        *,
        round_s: float = 45.0,
        viewers: int = 2,
        terms: Mapping[str, Mapping[str, Any]] = TERMS,
    ) -> None:
        self._run = run
        self._terms = terms
        self._nemesis = nemesis
        self._round_s = round_s
        self._viewers = viewers
        self.rounds = 0
        self.broken: list[str] = []
        """Every violation of every round, in words."""
        self.reads = 0
        self.events: Counter[str] = Counter()
        """How often each kind of decision was made."""

    async def go_on(self, seconds: float) -> None:
        """Round after round, until so long has passed; at least one."""
        until_s = time.monotonic() + seconds
        while True:
            await self.round()
            if time.monotonic() >= until_s:
                return

    async def round(self) -> None:
        """New items, faults, and the judgement."""
        run = self._run
        self.rounds += 1
        retired = list(run.items)
        names = {f"{kind}-{self.rounds}": terms for kind, terms in self._terms.items()}
        await run.auction(names, viewers=self._viewers)
        await run.retire(retired)
        async with run.bidders.bidding():
            async with run.operators.operating():
                await run.bidders.more(20, within_s=60)
                await self._nemesis.strike_for(self._round_s)
                await run.bidders.more(20, within_s=60)
            # With everything up again and nobody who pauses, each kind of end comes about under bids.
            await self._end(names)
        histories = await run.settle(within_s=90)
        found = [violation for history in histories for violation in violations(history)]
        if run.bidders.unresolved:
            found.append(f"{run.bidders.unresolved} bids with a key are of unknown outcome in the end")
        self.broken += [f"round {self.rounds}: {violation}" for violation in found]
        self._look(histories)
        for violation in found:
            run.note(f"VIOLATION {violation}")
        run.note(f"round {self.rounds} is judged: {len(found)} violations. So far: {self.summary()}")

    async def _end(self, names: Mapping[str, Any]) -> None:
        """Withdraw one item, and wait for those that have an end."""
        withdrawn = list(names)[-1]
        async with httpx.AsyncClient(timeout=10) as http:

            async def is_cancelled() -> bool:
                gateway = self._run.bidders.gateways[0]
                return await self._run.operators.ask(http, gateway, "cancel", withdrawn) in ("ok", "refused")

            await eventually(is_cancelled, seconds=_ENDED_WITHIN_S)
        ending = [item_id for item_id, terms in names.items() if "duration_s" in terms]
        async with self._run.redis() as redis:

            async def ended() -> bool:
                return all([await redis.hget(item_key(item_id), "status") in _FINAL for item_id in ending])

            await eventually(ended, seconds=_ENDED_WITHIN_S)
        await asyncio.sleep(0.5)

    def _look(self, histories: Sequence[History]) -> None:
        for history in histories:
            self.reads += len(history.reads)
            self.events.update(event.type for event in history.events)
            self.events.update(row.kind for row in history.rows)
            self.events["raised maximum"] += sum(decision.raised for decision in history.replay.decisions)

    def summary(self) -> str:
        """The sums, in one line."""
        sums = self._run.sums
        return ", ".join(f"{sums[name]:,} {name}" for name in ("acknowledged", "lost", "doubled", "hidden"))

    def table(self) -> Iterator[str]:
        """What was done, what was answered, and what became of it."""
        run = self._run
        yield f"seed {run.seed}, {self.rounds} rounds, {run.faults} faults, {self.reads:,} reads: {self.summary()}"
        yield from _counts("fault", {"times": self._nemesis.struck})
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for kind, outcomes in {**run.bidders.outcomes, **run.operators.outcomes}.items():
            for outcome, count in outcomes.items():
                answers[outcome][kind] = count
        yield from _counts("answers to", answers)
        yield from _counts("decided", {"times": self.events})


def _counts(title: str, columns: Mapping[str, Counter[str]]) -> Iterator[str]:
    yield "  ".join([f"{title:40}", *(f"{name:>10}" for name in columns)])
    for row in sorted({name for counts in columns.values() for name in counts}):
        yield "  ".join([f"{row:40}", *(f"{counts[row]:10,}" for counts in columns.values())])
