"""Runs the demo: opens lots, lets people bid at a given rate, and opens another lot whenever one is over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import httpx2 as httpx

from infrastructure.local.demo.bidders import crowd
from infrastructure.local.demo.gateway import TIMEOUT_S, Busy, Calm, Gateway, NotTaken
from infrastructure.local.demo.lots import Lot, LotPlanner
from infrastructure.local.demo.room import Room, Tally, Turn
from infrastructure.local.demo.tokens import Tokens
from shared.domain.money import exponent_of, format_amount
from shared.identity.errors import Unauthenticated

CALLS_MAX: Final = 16
"""Requests at once."""
LOOK_EVERY_S: Final = 1.0
LOTS_REFUSED_MAX: Final = 10
"""How many lots in a row the platform may refuse before the demo gives up."""
WARM_UP_BIDS_PER_LOT: Final = 3
WARM_UP_RATE: Final = 20.0


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the user asked for.

    Attributes:
        rate: bids per second on average.
        seconds: how long; None: until it is stopped.
        tag: makes the ids of the lots differ from those of other runs.
        give_up_after_s: after so long without an answer the platform counts as gone.
        tokens: where the platform demands them.
        find_within_s: if nothing ever answers for so long, there is no platform.
    """

    gateway_url: str
    lots: int
    bidders: int
    rate: float
    seconds: float | None
    seed: int
    tag: str
    give_up_after_s: float = 60.0
    find_within_s: float = 5.0
    tokens: Tokens | None = None


class Demo:
    """One run. ``say`` gets a line for each lot that opens or ends."""

    def __init__(self, plan: DemoPlan, say: Callable[[str], None]) -> None:
        chance = random.Random(plan.seed)
        planner = LotPlanner(random.Random(plan.seed + 1), plan.tag)
        self._plan = plan
        self._say = say
        self._chance = chance
        self._calm = Calm(chance, time.monotonic())
        self._room = Room(planner, crowd(plan.bidders), lots=plan.lots, chance=chance)
        self._lots: dict[str, Lot] = {}
        self._refused_in_a_row = 0
        self._warm_up = WARM_UP_BIDS_PER_LOT * plan.lots
        self._slots = asyncio.Semaphore(CALLS_MAX)

    @property
    def tally(self) -> Tally:
        """What happened so far."""
        return self._room.tally

    @property
    def still_open(self) -> int:
        """Lots that are still open and will end by themselves after the demo."""
        return len(self._room.open_ids)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or the time is over. Open requests are finished.

        Raises:
            DemoError: the platform is gone or refuses the lots.
        """
        limits = httpx.Limits(max_connections=CALLS_MAX, max_keepalive_connections=CALLS_MAX)
        # A proxy in the environment is meant for the internet, not for this.
        client = httpx.AsyncClient(base_url=self._plan.gateway_url, timeout=TIMEOUT_S, limits=limits, trust_env=False)
        async with client as http:
            gateway = Gateway(http, self._plan.tokens)
            work = [
                asyncio.create_task(each) for each in (self._keep_house(gateway, stop), self._let_bid(gateway, stop))
            ]
            stopped = asyncio.create_task(self._stopped(stop))
            try:
                await asyncio.wait([*work, stopped], return_when=asyncio.FIRST_COMPLETED)
                stop.set()
                await asyncio.wait(work)
                for task in work:
                    task.result()
                if not self._calm.is_there:
                    raise DemoError(self._nobody)
            finally:
                for task in (*work, stopped):
                    task.cancel()
                await asyncio.gather(*work, stopped, return_exceptions=True)

    async def _stopped(self, stop: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._plan.seconds):
                await stop.wait()

    # ------------------------------------------------------------------------------------------------------- lots

    async def _keep_house(self, gateway: Gateway, stop: asyncio.Event) -> None:
        while not stop.is_set():
            async with asyncio.TaskGroup() as group:
                for lot in self._room.wanted:
                    group.create_task(self._open(gateway, lot))
                for item_id in self._room.open_ids:
                    group.create_task(self._look(gateway, self._lots[item_id]))
            self._require_a_platform()
            await _wait(stop, max(LOOK_EVERY_S, self._calm.wait_s(time.monotonic())))

    @property
    def _nobody(self) -> str:
        url = self._plan.gateway_url
        return f"Nothing answers at {url}: is it the address of a gateway, and is the platform up?"

    def _require_a_platform(self) -> None:
        url, patience_s = self._plan.gateway_url, self._plan.give_up_after_s
        if self._refused_in_a_row >= LOTS_REFUSED_MAX:
            hint = " It demands tokens: `AUTH_MODE=jwt bidding demo` signs some." if self._lacks_tokens else ""
            raise DemoError(f"The platform at {url} does not take the lots: {', '.join(self.tally.troubles)}.{hint}")
        silent_s = time.monotonic() - self._calm.answered_s
        if not self._calm.is_there and silent_s > self._plan.find_within_s:
            raise DemoError(self._nobody)
        if silent_s > patience_s:
            raise DemoError(f"The platform at {url} has not answered for {patience_s:g} s.")

    @property
    def _lacks_tokens(self) -> bool:
        return self._plan.tokens is None and Unauthenticated.code in self.tally.troubles

    async def _open(self, gateway: Gateway, lot: Lot) -> None:
        async with self._slots:
            if not self._may_ask():
                return
            await self._try_to_open(gateway, lot)

    async def _try_to_open(self, gateway: Gateway, lot: Lot) -> None:
        async with self._answering():
            try:
                view = await gateway.open(lot)
            except NotTaken as error:
                self._refused_in_a_row += 1
                self._room.refused(lot, error.code)
                return
            self._refused_in_a_row = 0
            self._lots[lot.item_id] = lot
            self._room.opened(lot)
            self._room.seen(lot.item_id, view)
            when = f"opens in {lot.starts_in_s} s" if lot.starts_in_s else f"open for {_length(lot.length_s)}"
            self._say(f"+ {lot.ware.name}, {when}: /items/{lot.item_id}")

    async def _look(self, gateway: Gateway, lot: Lot) -> None:
        async with self._slots:
            if not self._may_ask():
                return
            await self._try_to_look(gateway, lot)

    async def _try_to_look(self, gateway: Gateway, lot: Lot) -> None:
        async with self._answering():
            try:
                view = await gateway.look(lot)
            except NotTaken as error:
                self._room.lost(lot.item_id, error.code)
                self._lots.pop(lot.item_id, None)
                return
            over = self._room.seen(lot.item_id, view)
            if over is not None:
                del self._lots[lot.item_id]
                price = format_amount(view.price, exponent_of(lot.ware.currency))
                outcome = f"sold for {price} {lot.ware.currency}" if view.status == "sold" else view.status
                self._say(f"- {lot.ware.name}: {outcome}, {view.bid_count} bids")

    # ------------------------------------------------------------------------------------------------------- bids

    async def _let_bid(self, gateway: Gateway, stop: asyncio.Event) -> None:
        """Bid at the rate that was asked for. The beginning is faster, so that there is something to see at once."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                rate = max(self._plan.rate, WARM_UP_RATE) if self._warm_up > 0 else self._plan.rate
                pause_s = min(self._chance.expovariate(rate), 3 / rate)
                await _wait(stop, max(pause_s, self._calm.wait_s(time.monotonic())))
                turn = None if stop.is_set() else self._room.next_turn(time.time())
                if turn is None:
                    continue
                self._warm_up -= 1
                self._room.bid_made(turn, time.time())
                await self._slots.acquire()
                group.create_task(self._bid(gateway, turn))

    async def _bid(self, gateway: Gateway, turn: Turn) -> None:
        try:
            async with self._answering():
                try:
                    verdict = await gateway.bid(turn.lot, turn.seat.bidder.user_id, turn.offer)
                except NotTaken as error:
                    self._room.trouble(error.code)
                    return
                self._room.bid_answered(
                    turn, code=verdict.code, price=verdict.price, minimum=verdict.minimum, leads=verdict.leads
                )
        finally:
            self._slots.release()

    def _may_ask(self) -> bool:
        """Whether a request may be sent. Checked again after a wait: the platform may have become busy meanwhile."""
        return self._calm.wait_s(time.monotonic()) == 0

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Note whether the platform answered, so that the demo pauses if it was refused."""
        try:
            yield
        except Busy as busy:
            self._calm.failed(busy, time.monotonic())
            self._room.trouble(busy.code)
        else:
            self._calm.succeeded(time.monotonic())


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def _length(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} min"
