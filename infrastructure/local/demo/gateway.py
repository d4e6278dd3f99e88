"""The platform as the demo uses it: over HTTP, like any client."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import httpx2 as httpx
import msgspec

from infrastructure.local.demo.bidders import LotView, Offer
from infrastructure.local.demo.lots import SELLER_ID, Lot
from infrastructure.local.demo.tokens import Tokens
from shared.domain.money import exponent_of

TIMEOUT_S: Final = 10.0
NO_ANSWER: Final = "NO_ANSWER"
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
_OPERATOR_ID: Final = "demo-operator"
_NAMED_MAX: Final = 200

_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


class Busy(Exception):
    """The platform asks for a pause (429, 503), or does not answer."""

    def __init__(self, code: str, retry_after_s: float = 0.0) -> None:
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(code)


class NotTaken(Exception):
    """The platform refuses a request, now and later; ``code`` says why."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True, slots=True)
class BidAnswer:
    """The answer to a bid, in minor units; ``code`` is None where it was accepted."""

    code: str | None
    price: int
    minimum: int
    leads: bool


class Gateway:
    """Calls of the HTTP API. All raise :class:`Busy` if a later try may succeed, and :class:`NotTaken` if not."""

    def __init__(self, http: httpx.AsyncClient, tokens: Tokens | None = None) -> None:
        """``tokens``: for a platform that demands them."""
        self._http = http
        self._tokens = tokens
        # By lot, who is behind an alias: no more than there are bidders.
        self._names: dict[str, dict[str, str]] = {}

    async def open(self, lot: Lot) -> LotView:
        """Put a lot on sale."""
        body = lot.body(datetime.now(UTC))
        return read_view(lot, await self._call("POST", "/api/v1/items", body, (SELLER_ID, "seller")))

    async def look(self, lot: Lot) -> LotView:
        """The lot's present state."""
        body = await self._call("GET", f"/api/v1/items/{lot.item_id}")
        return read_view(lot, body | {"highest_bidder_id": await self._leader(lot, body["highest_bidder_id"])})

    async def _leader(self, lot: Lot, told: str | None) -> str | None:
        """Who leads. A platform that demands tokens tells the alias, and only operators who that is."""
        if self._tokens is None or told is None:
            return told
        names = self._names.setdefault(lot.item_id, {})
        if told not in names:
            path = f"/api/v1/items/{lot.item_id}/named-bids?limit={_NAMED_MAX}"
            page = await self._call("GET", path, None, (_OPERATOR_ID, "operator"))
            names.update((bid["bidder"], bid["user_id"]) for bid in page["bids"])
        return names.get(told, told)

    async def bid(self, lot: Lot, user_id: str, offer: Offer) -> BidAnswer:
        """Place a bid. One whose answer was lost may count all the same; the next look at the lot shows it."""
        content: dict[str, Any] = {"user_id": user_id, "bid_id": f"demo-{uuid.uuid4().hex}"}
        if offer.amount is not None:
            content["amount"] = lot.amount(offer.amount)
        if offer.maximum is not None:
            content["max_amount"] = lot.amount(offer.maximum)
        path = f"/api/v1/items/{lot.item_id}/bid"
        return read_verdict(lot, await self._call("POST", path, msgspec.json.encode(content), (user_id, "bidder")))

    async def _call(
        self, method: str, path: str, content: bytes | None = None, who: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        """``who``: user id and role."""
        headers = {} if content is None else {"content-type": "application/json"}
        if self._tokens is not None and who is not None:
            headers["authorization"] = f"Bearer {self._tokens.of(*who)}"
        try:
            answer = await self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise Busy(NO_ANSWER) from error
        return read_answer(answer.status_code, answer.content, answer.headers)


def read_answer(status: int, content: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The body of a successful response.

    Raises:
        Busy: 429 and every 5xx.
        NotTaken: every other failure.
    """
    try:
        body = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = {}
    if status in (200, 201) and body:
        return body
    code = str(body.get("code", f"HTTP_{status}"))
    if status == 429 or status >= 500:
        raise Busy(code, _retry_after_s(headers))
    raise NotTaken(code, str(body.get("detail", "no answer that we understand")))


def read_view(lot: Lot, body: Mapping[str, Any]) -> LotView:
    """What ``GET /items/{id}`` and ``POST /items`` answer."""
    suggested = [_minor(lot, amount) for amount in body["suggested_bids"]]
    return LotView(
        status=body["status"],
        price=_minor(lot, body["current_bid"]),
        minimum=_minor(lot, body["min_next_bid"]),
        leader=body["highest_bidder_id"],
        bid_count=body["bid_count"],
        starts_s=_seconds(body["start_time"]),
        ends_s=None if body["end_time"] is None else _seconds(body["end_time"]),
        step=max(1, suggested[1] - suggested[0]) if len(suggested) > 1 else 1,
        buy_now=_minor(lot, body["buy_now_price"]) if body["buy_now_available"] else None,
    )


def read_verdict(lot: Lot, body: Mapping[str, Any]) -> BidAnswer:
    """What ``POST /items/{id}/bid`` answers."""
    code = None if body["success"] else str(body["code"])
    return BidAnswer(code, _minor(lot, body["current_bid"]), _minor(lot, body["min_next_bid"]), body["is_highest"])


class Calm:
    """How long to leave the platform alone: longer after each failure, and not at all once it has answered.

    The waits have jitter, so that demos that were refused together do not come back together. ``now_s`` is any
    monotonic clock. ``answered_s``: when the platform last did what was asked, or the beginning. ``is_there``: whether
    anything ever answered, if only that it is busy.
    """

    def __init__(self, chance: random.Random, now_s: float) -> None:
        self._chance = chance
        self._failures = 0
        self._until_s = now_s
        self.answered_s = now_s
        self.is_there = False

    def wait_s(self, now_s: float) -> float:
        """Seconds from now on without requests."""
        return max(0.0, self._until_s - now_s)

    def failed(self, busy: Busy, now_s: float) -> None:
        """The platform was busy or did not answer. Requests from before the end of the last wait do not prolong it."""
        self.is_there = self.is_there or busy.code != NO_ANSWER
        if now_s < self._until_s:
            return
        most_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self._until_s = now_s + min(max(0.0, busy.retry_after_s), PAUSE_MAX_S) + self._chance.uniform(0.5, 1.0) * most_s

    def succeeded(self, now_s: float) -> None:
        """The platform answered."""
        self.is_there = True
        self._failures = 0
        self.answered_s = now_s


def _minor(lot: Lot, amount: int | Decimal) -> int:
    return int(Decimal(amount).scaleb(exponent_of(lot.ware.currency)))


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def _retry_after_s(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0
