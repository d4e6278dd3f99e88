"""WebSockets of bids without a network: whose pages may use them, and when a place is free again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api_gateway.bid_socket.messages import TOKEN_EXPIRED, TOO_MANY_ERRORS
from api_gateway.bid_socket.protocol import BidSocket
from api_gateway.bid_socket.session import ERRORS_MAX, Session
from api_gateway.bid_socket.sockets import BidSockets
from api_gateway.contract.schemas import _meant
from api_gateway.door.foreign_pages import is_allowed
from api_gateway.identity.access import Access, Permit, Reach
from shared.identity.jwks import parse_jwks
from shared.identity.keys import FixedKeys, Keys
from shared.identity.principals import Principals
from shared.identity.signing import WithOwnKey
from shared.identity.tokens import Tokens
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, headers_of, jwk_of, jwks, private_key, signed
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("origin", "others", "allowed"),
    [
        ("http://here:8080", [], True),
        ("http://there", [], False),
        ("http://there", ["http://there"], True),
        ("HTTP://There", ["http://there"], True),
        ("http://there", ["*"], True),
        ("http://[", [], False),
        ("null", [], False),
    ],
)
def test_pages_of_the_same_origins_as_over_http_may_bid(origin: str, others: list[str], allowed: bool) -> None:
    assert is_allowed(origin, "here:8080", others) is allowed


class Socket:
    is_writable = True

    def __init__(self) -> None:
        self.finished: list[int] = []

    def write(self, data: bytes) -> None:
        return

    def finish(self, code: int, reason: str) -> None:
        self.finished.append(code)

    def go_on(self) -> None:
        return


async def test_a_place_is_free_when_nothing_is_done_for_it_any_more() -> None:
    """1. A client bids on items that are not known. 2. It goes, and comes again, and again."""
    sockets = BidSockets(connections_max=1)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def find_exponent(item_id: str) -> int:
        asked.set()
        await answered.wait()
        raise RuntimeError("it does not matter")

    context: Any = SimpleNamespace(items=SimpleNamespace(known={}, find_exponent=find_exponent))
    socket = Socket()
    session = Session(context, Permit(None, Reach.ANY), cast(Any, socket), on_gone=sockets.leave)
    sockets.enter(session, cast(Any, socket))
    session.on_message('{"op":"bid","id":1,"item_id":"lot","user_id":"ann","amount":1}')
    await asked.wait()
    session.on_gone()
    assert sockets.is_full, "the item is still looked for"
    session.look()
    answered.set()
    await eventually(lambda: not sockets.is_full)


async def test_a_mistake_a_second_is_forgiven_however_long_the_connection_lasts() -> None:
    socket, now_s = Socket(), 0.0
    session = Session(cast(Any, None), Permit(None, Reach.ANY), cast(Any, socket), on_gone=lambda _: None)
    session._clock = lambda: now_s
    session._erred_s = now_s
    for _ in range(3 * ERRORS_MAX):
        now_s += 1.0
        session.on_message("{")
    await asyncio.sleep(0)
    assert socket.finished == []
    # What was forgiven is no credit beyond the bound.
    now_s += 10 * ERRORS_MAX
    for _ in range(ERRORS_MAX):
        session.on_message("{")
    await asyncio.sleep(0)
    assert socket.finished == []
    session.on_message("{")
    await asyncio.sleep(0)
    assert socket.finished == [TOO_MANY_ERRORS.code]


def test_a_client_that_is_not_read_is_not_taken_for_dead() -> None:
    """Its pong may be among what is not read while 1,024 of its bids have no answer."""
    socket = BidSocket.__new__(BidSocket)
    socket._is_held, socket.is_overdue, socket.pinged_s = True, True, 0.0
    socket.tend(50.0, b"ping", interval_s=20.0, timeout_s=20.0)
    assert (socket.is_overdue, socket.pinged_s) == (False, 50.0), "its time begins when it is read again"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("max_amuont", "max_amount"), ("ammount", "amount"), ("amt", "amount"), ("x", None), ("a" * 64, None)],
)
def test_a_misspelt_member_is_guessed_by_its_letters(name: str, meant: str | None) -> None:
    assert _meant(name, ["user_id", "amount", "max_amount", "bid_id"]) == meant


async def test_it_closes_when_the_key_of_its_token_is_withdrawn_and_stays_when_another_is() -> None:
    """Else whoever has signed with a key that was stolen would bid on until the end that they have written themselves.

    1. The issuer has two keys; somebody connects. 2. The other key goes. 3. Theirs does.
    """
    ec, ed = jwk_of(private_key("ES256"), "one"), jwk_of(private_key("EdDSA"), "two")
    issued = FixedKeys(parse_jwks(jwks(ec, ed)))
    keys: Keys = WithOwnKey(parse_jwks(jwks(jwk_of(private_key("ES256"), "own"))), issued)
    principals = Principals(Tokens(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0), keys)
    access, socket = Access(principals), Socket()
    token = signed(private_key("ES256"), "ES256", headers={"kid": "one"}, exp=253_402_300_799)
    permit = access.permit("bid_socket", headers_of(token))
    context: Any = SimpleNamespace(access=access)
    session = Session(context, permit, cast(Any, socket), on_gone=lambda _: None)
    session.look()
    # Read anew, each key is another object.
    issued._keys = parse_jwks(jwks(ec))
    session.look()
    assert socket.finished == []
    issued._keys = parse_jwks(jwks(ed))
    session.look()
    assert socket.finished == [TOKEN_EXPIRED.code]
