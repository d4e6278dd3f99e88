"""A bid on both roads, with and without ASGI: whatever becomes of it, its client is answered once and it is counted
where it was decided."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from api_gateway.context import Context
from api_gateway.contract.schemas import BidRequest, decode_body
from api_gateway.direct import DirectRoad
from api_gateway.door.foreign_pages import ForeignPages
from api_gateway.door.rates import Rates
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.hot_path import BID_BYTES_MAX, HotPath, SentBid, render
from api_gateway.identity.access import Access, Permit, Reach
from shared.domain.errors import InvalidInput, OutcomeUnknown, Overloaded
from shared.http.metrics import Histogram
from shared.http.proxies import Proxies
from tests.waiting import eventually

BODY = b'{"user_id":"ada","amount":1.25}'
ACCEPTED = b"A|~1|3|125|125|1|126|1|bid|2|9"
REFUSED = b"R|TOO_LOW|200|0|201|0"


class Gateway:
    """What both roads need of one: an item with two decimals that is known, and a queue that does what a test says."""

    def __init__(
        self, outcome: bytes | Exception, *, full: bool = False, fills_up: bool = False, per_address: int = 0
    ) -> None:
        self._outcome, self._full, self._fills_up = outcome, full, fills_up
        self.charged = 0
        self.refused: list[Callable[[], bool]] = []
        self.refusals = SimpleNamespace(add=self._refuse)
        self.waits = False
        self.placed: list[PendingBid] = []
        self.bid_seconds = Histogram(1.0)
        self.items = SimpleNamespace(
            known={"lot": 2},
            left=self._left,
            gone=self._gone,
            find_exponent=self._find_nothing,
            surely_left=self._left,
            open_by_default=self._open,
        )
        self.opened: list[str] = []
        self.committer = self
        self.access = Access(None)
        self.traces = None
        self.pages = ForeignPages((), json_only=True)
        self.rates = Rates(per_caller=0, per_address=per_address, proxies=Proxies(""))

    def permit(self, call: str, headers: Any, peer: str | None) -> Permit:
        self.charged += 1
        return Context.permit(cast(Any, self), call, headers, peer)

    def permit_named(self, call: str, headers: Any, peer: str | None) -> Permit:
        self.charged += 1
        return Context.permit_named(cast(Any, self), call, headers, peer)

    def sheds(self) -> bool:
        return self._full

    def _refuse(self, tell: Callable[[], bool]) -> None:
        self.refused.append(tell)
        if not self.waits:
            tell()

    def place(self, bid: PendingBid) -> None:
        if self._fills_up:
            raise Overloaded("full")
        self.placed.append(bid)
        if isinstance(self._outcome, Exception):
            bid.verdict.set_exception(self._outcome)
        else:
            bid.verdict.set_result(self._outcome)

    async def _left(self, item_id: str) -> None:
        return

    async def _find_nothing(self, item_id: str) -> None:
        self._full = self._fills_up

    async def _open(self, item_id: str) -> None:
        self.opened.append(item_id)

    async def _gone(self, item_id: str) -> None:
        raise InvalidInput(f"{item_id} is gone")

    @property
    def counted(self) -> int:
        return sum(self.bid_seconds.counts)


class Request:
    """A plain request, as the direct road is handed it."""

    def __init__(self, gateway: Gateway, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.target, self.headers, self.body = b"/api/v1/items/lot/bid", dict(headers), body
        self.state = {"context": gateway}
        self.peer, self.admitted, self.is_late = "192.0.2.7", None, False
        self.is_gone = False
        self.statuses: list[int] = []
        self.answers: list[tuple[bytes, bytes]] = []

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        self.statuses.append(status)
        self.answers.append((lines, body))

    def fail(self) -> None:
        self.statuses.append(500)


async def directly(gateway: Gateway, body: bytes, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> list[int]:
    road, request = DirectRoad(), Request(gateway, body, list(headers))
    endpoint = road.find(b"POST", request.target)
    assert endpoint is not None
    assert endpoint.begin is not None
    endpoint.begin(cast(Any, request))
    if not request.statuses:
        endpoint.answer(cast(Any, request))
    await eventually(lambda: bool(request.statuses) and not road._tasks)
    return request.statuses


async def by_asgi(
    gateway: Gateway,
    body: bytes,
    *,
    pieces: int = 1,
    ends: bool = True,
    headers: Sequence[tuple[bytes, bytes]] = (),
    sent: list[Any] | None = None,
    leaves: asyncio.Event | None = None,
) -> list[int]:
    """The statuses of the answers; ``sent`` gets all messages. The client goes after its body, or when ``leaves`` is
    set."""
    size = -(-len(body) // pieces)
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    messages: list[Any] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = not ends
    messages.append({"type": "http.disconnect"})
    sent = [] if sent is None else sent

    async def receive() -> Any:
        if len(messages) == 1 and leaves is not None:
            await leaves.wait()
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "path": "/api/v1/items/lot/bid",
        "method": "POST",
        "headers": list(headers),
    }
    scope["client"] = ("192.0.2.7", 4711)
    await HotPath(cast(Any, None))(scope | {"state": {"context": gateway}}, receive, send)
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


ROADS = [directly, by_asgi]


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    ("outcome", "status", "counted"),
    [
        (ACCEPTED, 201, 1),
        (REFUSED, 200, 1),
        (b"K", 422, 0),
        (OutcomeUnknown(), 503, 0),
        (ItemMissing(), 422, 0),
        (ZeroDivisionError(), 500, 0),
    ],
)
async def test_every_outcome_has_its_answer(
    road: Callable[[Gateway, bytes], Any], outcome: bytes | Exception, status: int, counted: int
) -> None:
    gateway = Gateway(outcome)
    assert await road(gateway, BODY) == [status]
    (bid,) = gateway.placed
    assert (bid.item_id, bid.user_id, bid.amount, bid.key) == ("lot", "ada", 125, None)
    assert gateway.counted == counted, "its time is that of a decided bid"


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    "body", [b'{"user_id":"ada"}', b'{"user_id":"ada","max_amount":null}', b'{"user_id":"ada","amount":1.255}', b"{"]
)
async def test_what_is_malformed_is_not_placed(road: Callable[[Gateway, bytes], Any], body: bytes) -> None:
    gateway = Gateway(ACCEPTED)
    assert await road(gateway, body) == [422]
    assert (gateway.placed, gateway.counted) == ([], 0)


@pytest.mark.parametrize("road", ROADS)
async def test_a_full_queue_is_told_at_once(road: Callable[[Gateway, bytes], Any]) -> None:
    for body in (BODY, b"{"):
        gateway = Gateway(ACCEPTED, full=True)
        assert await road(gateway, body) == [503]
        assert (gateway.charged, gateway.placed, gateway.counted) == (0, [], 0), "nothing else was done for it"


@pytest.mark.parametrize("road", ROADS)
async def test_a_queue_that_fills_up_meanwhile_is_told_too(road: Callable[[Gateway, bytes], Any]) -> None:
    gateway = Gateway(ACCEPTED, fills_up=True)
    assert await road(gateway, BODY) == [503]
    assert gateway.charged == 1


@pytest.mark.parametrize("road", ROADS)
async def test_a_bid_that_is_shed_opens_no_item(road: Callable[[Gateway, bytes], Any]) -> None:
    gateway = Gateway(ACCEPTED, fills_up=True)
    gateway.items.known = {}
    assert await road(gateway, BODY) == [503]
    assert gateway.opened == []


async def test_what_is_shed_says_when_to_come_again_on_both_roads_alike() -> None:
    gateway = Gateway(ACCEPTED, full=True)
    request = Request(gateway, BODY, [])
    endpoint = DirectRoad().find(b"POST", request.target)
    assert endpoint is not None
    assert endpoint.begin is not None
    endpoint.begin(cast(Any, request))
    endpoint.answer(cast(Any, request))
    (direct,) = request.answers
    sent: list[Any] = []
    await by_asgi(gateway, BODY, sent=sent)
    start, body = sent
    head = b"".join(b"%b: %b\r\n" % header for header in start["headers"] if header[0] != b"content-length")
    assert direct == (head, body["body"])
    assert b"retry-after: 1\r\n" in head
    assert json.loads(body["body"])["code"] == "OVERLOADED"


async def test_a_bid_whose_refusal_waits_is_not_placed() -> None:
    gateway = Gateway(ACCEPTED, full=True)
    gateway.waits = True
    request = Request(gateway, BODY, [])
    endpoint = DirectRoad().find(b"POST", request.target)
    assert endpoint is not None
    assert endpoint.begin is not None
    endpoint.begin(cast(Any, request))
    gateway._full = False
    endpoint.answer(cast(Any, request))  # its body has come
    assert (request.statuses, gateway.placed) == ([], [])
    assert gateway.refused.pop()(), "somebody was told"
    assert request.statuses == [503]


def _listeners() -> list[asyncio.Task[Any]]:
    """Those who wait for a client to leave whose refusal waits."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "shed-bid"]


async def test_without_asgi_or_with_it_a_refusal_waits_until_it_may_be_told() -> None:
    """Whoever sends in chunks, or many requests at once, would else be told more often than bids are decided."""
    gateway = Gateway(ACCEPTED, full=True)
    gateway.waits = True
    leaves = asyncio.Event()
    answered = asyncio.create_task(by_asgi(gateway, BODY, leaves=leaves))
    await eventually(lambda: bool(gateway.refused) or answered.done())
    assert not answered.done()
    tell = gateway.refused.pop()
    assert tell()
    assert await asyncio.wait_for(answered, 30) == [503]
    await eventually(lambda: not _listeners())

    given_up = asyncio.create_task(by_asgi(gateway, BODY, leaves=leaves))
    await eventually(lambda: bool(gateway.refused))
    given_up.cancel()
    await asyncio.wait([given_up])
    await eventually(lambda: not _listeners())
    assert not gateway.refused.pop()(), "nobody waits"

    gone = asyncio.create_task(by_asgi(gateway, BODY, leaves=leaves))
    await eventually(lambda: bool(gateway.refused))
    leaves.set()
    assert await asyncio.wait_for(gone, 30) == []
    assert not gateway.refused.pop()(), "its client takes nobody's place"


async def test_who_has_gone_is_not_told() -> None:
    gateway = Gateway(ACCEPTED, full=True)
    gateway.waits = True
    request = Request(gateway, BODY, [(b"x-long", b"x" * 1_000)])
    endpoint = DirectRoad().find(b"POST", request.target)
    assert endpoint is not None
    assert endpoint.begin is not None
    endpoint.begin(cast(Any, request))
    endpoint.answer(cast(Any, request))
    assert (request.body, request.headers) == (b"", {}), "nobody reads them, and they may wait"
    request.is_gone = True
    assert not gateway.refused.pop()()


async def test_a_body_that_is_too_large_is_none_of_a_shed_bid_either() -> None:
    gateway = Gateway(ACCEPTED, full=True)
    assert await by_asgi(gateway, BODY.ljust(BID_BYTES_MAX + 1), pieces=3) == [413]
    assert await by_asgi(gateway, BODY, ends=False) == []


@pytest.mark.parametrize("road", ROADS)
async def test_an_address_that_asks_too_much_is_told_so_and_its_bid_is_not_placed(
    road: Callable[[Gateway, bytes], Any],
) -> None:
    gateway = Gateway(ACCEPTED, per_address=1)
    statuses = [(await road(gateway, BODY))[0] for _ in range(12)]
    assert statuses == [201] * 10 + [429] * 2
    assert len(gateway.placed) == 10


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"origin", b"https://evil.example", 403),
        (b"origin", b"null", 403),
        (b"sec-fetch-site", b"cross-site", 403),
        (b"sec-fetch-site", b"same-origin", 201),
        (b"content-type", b"text/plain", 415),
        (b"content-type", b"application/json", 201),
    ],
)
async def test_a_bid_of_a_foreign_page_is_not_placed(
    road: Callable[..., Any], name: bytes, value: bytes, status: int
) -> None:
    gateway = Gateway(ACCEPTED)
    said = {b"host": b"here", b"content-length": b"%d" % len(BODY), b"content-type": b"application/json", name: value}
    assert await road(gateway, BODY, headers=list(said.items())) == [status]
    assert len(gateway.placed) == (status == 201)


async def test_a_body_in_pieces_is_one_and_has_one_bound() -> None:
    assert await by_asgi(Gateway(ACCEPTED), BODY, pieces=7) == [201]
    assert await by_asgi(Gateway(ACCEPTED), BODY.ljust(BID_BYTES_MAX), pieces=3) == [201]
    assert await by_asgi(Gateway(ACCEPTED), BODY.ljust(BID_BYTES_MAX + 1), pieces=3) == [413]


async def test_a_bid_whose_client_goes_before_its_end_is_none() -> None:
    gateway = Gateway(ACCEPTED)
    assert await by_asgi(gateway, BODY, ends=False) == []
    assert gateway.placed == []


def sent(body: str, header_key: str | None = None) -> SentBid:
    request = decode_body(msgspec.json.Decoder(BidRequest), body.encode(), "")
    return SentBid.of(request, Permit(None, Reach.ANY), header_key)


async def test_a_maximum_may_equal_the_amount_and_not_be_below_it() -> None:
    bid = sent('{"user_id":"ada","amount":5,"max_amount":5}').pending("lot", 2)
    assert (bid.amount, bid.maximum) == (500, 500)
    with pytest.raises(InvalidInput, match="at least amount"):
        sent('{"user_id":"ada","amount":5,"max_amount":4.99}').pending("lot", 2)


@pytest.mark.parametrize(
    ("bid_id", "header_key", "key", "key_is_bid_id"),
    [(None, None, None, False), (None, "k", "k", False), ("b", None, "b", True), ("b", "b", "b", True)],
)
def test_which_key_a_bid_has(bid_id: str | None, header_key: str | None, key: str | None, key_is_bid_id: bool) -> None:
    named = "" if bid_id is None else f',"bid_id":"{bid_id}"'
    found = sent(f'{{"user_id":"ada","amount":5{named}}}', header_key)
    assert (found.key, found.key_is_bid_id) == (key, key_is_bid_id)
    assert bid_id is None or found.bid_id == bid_id


def test_a_bid_under_two_keys_is_refused_and_ids_of_the_gateway_are_never_the_same() -> None:
    with pytest.raises(InvalidInput, match="differ"):
        sent('{"user_id":"ada","amount":5,"bid_id":"b"}', "k")
    ids = [sent('{"user_id":"ada","amount":5}', key).bid_id for key in (None, "k", None)]
    assert len(set(ids)) == 3
    with pytest.raises(InvalidInput, match="made by the gateway"):
        sent(f'{{"user_id":"ada","amount":5,"bid_id":"{ids[0]}"}}')


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"A|b|3|125|125|1|126|1|bid|2|9", '"message":"Bid accepted",'),
        (b"A|b|3|130|125|0|131|1|bid|2|9", "another bidder's maximum is higher"),
        (b"M|b|3|125|125|1|126|1|bid|2|9", "maximum is raised"),
        (b"A|b|3|900|900|1|901|1|buy_now|2|9", "buy-now price"),
        (b"R|TOO_LOW|200|0|201|0", "bid at least 2.01"),
        (b"R|PAUSED|200|1|201|0", "is paused"),
    ],
)
def test_what_is_said_of_a_verdict(line: bytes, said: str) -> None:
    status, body = render(line, "lot", 2, 125, None)
    assert said in body.decode()
    fields = line.decode().split("|")
    facts = json.loads(body)
    if fields[0] == "R":
        assert (status, facts["success"], facts["code"], facts["is_highest"]) == (200, False, fields[1], False)
        assert (facts["you_lead"], facts["current_bid"], facts["reserve_met"]) == (fields[3] == "1", 2, False)
    else:
        assert (status, facts["success"], facts["event_id"]) == (201, True, "lot:2:3")
        assert (facts["current_bid"], facts["is_highest"]) == (int(fields[3]) / 100, fields[5] == "1")
        assert facts["reserve_met"] is True


@pytest.mark.parametrize(("method", "target", "is_ours"), [
    (b"POST", b"/api/v1/items/lot/bid", True),
    (b"GET", b"/api/v1/items/lot", True),
    (b"PUT", b"/api/v1/items/lot", False),
    (b"GET", b"/api/v1/items/lot/bid", False),
    (b"POST", b"/api/v1/items", True),
    (b"POST", b"/api/v1/items?x=1", False),
    (b"GET", b"/api/v1/items", False),
    (b"POST", b"/api/v1/items:batch", False),
    (b"POST", b"/api/v1/items/lot", False),
    (b"POST", b"/api/v1/items/lot/bid?x=1", False),
    (b"POST", b"/api/v1/items/" + b"x" * 64 + b"/bid", True),
    (b"POST", b"/api/v1/items/" + b"x" * 65 + b"/bid", False),
    (b"GET", b"/api/v1/items/l%6Ft", False),
    (b"GET", b"/api/v1/items/lot\n", False),
])  # fmt: skip
def test_only_plain_requests_take_the_direct_road(method: bytes, target: bytes, is_ours: bool) -> None:
    assert (DirectRoad().find(method, target) is not None) is is_ours


async def test_a_bid_on_an_item_that_is_not_known_yet_is_decided_and_counted_too() -> None:
    gateway = Gateway(ACCEPTED)

    async def find_exponent(item_id: str) -> int:
        return 2

    gateway.items.known = {}
    gateway.items.find_exponent = find_exponent
    assert await directly(gateway, BODY) == [201]
    assert gateway.counted == 1
    gateway._outcome = ZeroDivisionError()
    assert await directly(gateway, BODY) == [500]
    assert gateway.counted == 1
