"""A gateway in this process, played by the rules of ``shared.domain``: what a client of the API can be tested
against.

It is a transport of httpx, so no socket is opened. Faults are part of the play: an answer that gets lost
after the bid was placed, a request that never arrives, an overload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import msgspec

from shared.domain.auction import State, Terms, minimum_bid, opening_state
from shared.domain.bidding import Accepted, Bid, place_bid
from shared.domain.increments import Increment, default_ladder
from shared.domain.money import format_amount, parse_amount

Fault = Callable[[httpx.Request], str | None]
"""Called per request: ``lose`` the answer, ``drop`` the request, ``shed`` it with 503, or None."""


@dataclass
class PretendGateway:
    """Items and verdicts by name; ``requests`` in the order in which they came, dropped ones included."""

    fault: Fault = field(default=lambda _: None)
    items: dict[str, tuple[Terms, State]] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], httpx.Response] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    wrong_price: bool = False

    def client(self) -> httpx.AsyncClient:
        """A client whose every request comes here."""
        return httpx.AsyncClient(base_url="http://gateway.test", transport=httpx.MockTransport(self._answer))

    def bodies(self, suffix: str) -> list[bytes]:
        """The bodies of all requests to paths with this end."""
        return [request.content for request in self.requests if request.url.path.endswith(suffix)]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        fault = self.fault(request)
        if fault == "drop":
            raise httpx.ConnectError("refused", request=request)
        if fault == "shed":
            return _problem(503, "OVERLOADED", {"Retry-After": "0"})
        response = self._route(request)
        if fault == "lose":
            raise httpx.ReadTimeout("no answer", request=request)
        return response

    def _route(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.removeprefix("/api/v1/").split("/")
        if parts == ["items"]:
            return self._open(request)
        if parts[:2] == ["bids", "by-key"]:
            stored = self.verdicts.get((request.url.params["item_id"], parts[2]))
            return httpx.Response(200, content=stored.content) if stored else _problem(404, "KEY_NOT_FOUND")
        if parts[1] not in self.items:
            return _problem(404, "ITEM_NOT_FOUND")
        return self._place(parts[1], request) if len(parts) == 3 else self._show(parts[1])

    def _open(self, request: httpx.Request) -> httpx.Response:
        sent = _json(request)
        if sent["id"] in self.items:
            return _problem(409, "ITEM_EXISTS")
        ladder = sent.get("increment", {}).get("kind") == "ladder"
        terms = Terms(
            item_id=sent["id"],
            start_us=0,
            start_price=_minor(sent.get("start_price", Decimal(0)), minimum=0),
            increment=default_ladder(2) if ladder else Increment(),
        )
        self.items[sent["id"]] = (terms, opening_state(terms, 1))
        return httpx.Response(201, json={"id": sent["id"]})

    def _place(self, item_id: str, request: httpx.Request) -> httpx.Response:
        sent = _json(request)
        if stored := self.verdicts.get((item_id, sent["bid_id"])):
            return httpx.Response(stored.status_code, content=stored.content)
        terms, state = self.items[item_id]
        amount, maximum = (_minor(sent[name]) if name in sent else None for name in ("amount", "max_amount"))
        outcome = place_bid(terms, state, Bid(sent["bid_id"], sent["user_id"], amount, maximum), 1)
        self.items[item_id] = (terms, outcome.state)
        after = (
            f'"current_bid":{_money(outcome.state.price)},"min_next_bid":{_money(minimum_bid(terms, outcome.state))}'
        )
        if isinstance(outcome.verdict, Accepted):
            verdict = outcome.verdict
            leads = "true" if verdict.leads else "false"
            body = f'{{"success":true,"seq":{verdict.seq},"is_highest":{leads},{after}}}'
            response = httpx.Response(201, content=body)
        else:
            response = httpx.Response(200, content=f'{{"success":false,"code":"{outcome.verdict.code}",{after}}}')
        self.verdicts[item_id, sent["bid_id"]] = response
        return response

    def _show(self, item_id: str) -> httpx.Response:
        terms, state = self.items[item_id]
        price = state.price + 1 if self.wrong_price else state.price
        leader = f'"{state.leader}"' if state.leader else "null"
        return httpx.Response(
            200,
            content=f'{{"id":"{item_id}","current_bid":{_money(price)},"bid_count":{state.bid_count},"epoch":1,'
            f'"min_next_bid":{_money(minimum_bid(terms, state))},"highest_bidder_id":{leader},"seq":{state.seq}}}',
        )


def _json(request: httpx.Request) -> dict[str, Any]:
    """The body with exact numbers."""
    body: dict[str, Any] = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode(request.content)
    return body


def _minor(amount: Decimal | int, *, minimum: int = 1) -> int:
    return parse_amount(str(amount), 2, minimum_minor=minimum)


def _money(minor: int) -> str:
    return format_amount(minor, 2)


def _problem(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "error": code}, headers=headers)
