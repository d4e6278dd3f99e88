"""What is remembered of a caller makes the next bid cheaper, and lets nothing through: on one connection, which stays
open, a bid is taken and the next one is refused, since meanwhile its token has expired or was revoked, its key was
withdrawn, or its rate is used up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn

from api_gateway.context import Context
from api_gateway.direct import DirectRoad
from api_gateway.door.foreign_pages import ForeignPages
from api_gateway.door.rates import Rates
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.hot_path import HotPath
from api_gateway.identity.access import Access
from infrastructure.local.servers.ports import HOST
from shared.http.metrics import Histogram
from shared.http.protocols.direct import direct_protocol
from shared.http.proxies import Proxies
from shared.identity.keys import Secret
from shared.identity.principals import Principals
from shared.identity.revocations import Revocation, Revocations
from shared.identity.tokens import Tokens
from shared.secret_pairs import SecretPair
from tests.protocols import speaking
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, SECRET, signed
from tests.waiting import eventually

_JSON = "content-type: application/json\r\n"
NOW_S = int(time.time())
LASTING: dict[str, Any] = {"exp": NOW_S + 3_600, "iat": NOW_S, "jti": "a-token"}


class Gateway:
    """One that accepts every bid which its door lets in; its clock is a test's."""

    def __init__(self, *, per_caller: float = 0, per_address: float = 0) -> None:
        self.now_s = float(NOW_S)
        self.keys = Secret(SecretPair("AUTH_HS256_SECRET", SECRET))
        self.revocations = Revocations(leeway_s=0, now_s=self.clock)
        self.revocations.is_known = True
        tokens = Tokens(self.keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)
        principals = Principals(tokens, self.keys, revocations=self.revocations, now_s=self.clock)
        self.access = Access(principals)
        self.rates = Rates(per_caller=per_caller, per_address=per_address, proxies=Proxies(""), clock=self.clock)
        self.pages = ForeignPages((), json_only=True)
        self.items = SimpleNamespace(known={"lot": 2})
        self.bid_seconds = Histogram(1.0)
        self.committer = self
        self.traces = None
        self.bidders: list[str] = []
        self.let_in = 0

    def clock(self) -> float:
        return self.now_s

    def permit(self, call: str, headers: Any, peer: str | None) -> Any:
        permit = Context.permit(cast(Any, self), call, headers, peer)
        self.let_in += 1
        return permit

    def permit_named(self, call: str, headers: Any, peer: str | None) -> Any:
        permit = Context.permit_named(cast(Any, self), call, headers, peer)
        self.let_in += 1
        return permit

    def sheds(self) -> bool:
        return False

    def place(self, bid: PendingBid) -> None:
        self.bidders.append(bid.user_id)
        bid.verdict.set_result(b"A|~1|3|125|125|1|126|1|bid|2|9")


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def bid(
        self,
        token: str,
        *,
        scheme: str = "Bearer ",
        lines: str = _JSON,
        in_chunks: bool = False,
        before_the_end: Callable[[], Awaitable[None]] | None = None,
    ) -> int:
        """The status of the answer. ``in_chunks``: by the ASGI road. ``before_the_end`` is awaited before the last byte
        of the body is sent."""
        body = '{"amount":1.25}'
        sized = f"content-length: {len(body)}\r\n\r\n{body}"
        if in_chunks:
            sized = f"transfer-encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n"
        request = (
            f"POST /api/v1/items/lot/bid HTTP/1.1\r\nhost: x\r\nauthorization: {scheme}{token}\r\n{lines}{sized}"
        ).encode()
        if before_the_end is not None:
            self._writer.write(request[:-1])
            await before_the_end()
            request = request[-1:]
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        await self._reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        return int(head.split()[1])


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[Connection]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("these are bids")

    config = uvicorn.Config(cast(Any, HotPath(app)), interface="asgi3", lifespan="off", ws="none", log_config=None)
    protocol = direct_protocol(DirectRoad().find, head_bytes_max=16_384, timeout_s=600)

    def with_state(*args: Any, **options: Any) -> Any:
        return protocol(*args, **options | {"app_state": {"context": gateway}})

    async with speaking(cast(Any, with_state), config) as (port, _), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(HOST, port)
        yield Connection(reader, writer)
        writer.close()


async def test_a_token_that_expires_while_its_connection_is_open() -> None:
    gateway = Gateway()
    token = signed(**LASTING)
    async with connected(gateway) as connection:
        gateway.now_s += 3_599
        assert [await connection.bid(token) for _ in range(2)] == [201, 201]
        gateway.now_s += 1
        assert [await connection.bid(token) for _ in range(2)] == [401, 401]
    assert gateway.bidders == ["ann", "ann"]


@pytest.mark.parametrize("name", ["t:a-token", "u:ann"])
async def test_a_token_that_is_revoked_while_its_connection_is_open(name: str) -> None:
    gateway = Gateway()
    token, other = signed(**LASTING), signed(**LASTING | {"sub": "bob", "jti": "another"})
    async with connected(gateway) as connection:
        assert [await connection.bid(token) for _ in range(2)] == [201, 201]
        gateway.revocations.add({name: Revocation(NOW_S, NOW_S + 3_600)})
        assert [await connection.bid(token) for _ in range(2)] == [401, 401]
        assert await connection.bid(token, scheme="bearer  ") == 401, "however it is spelt"
        assert await connection.bid(other) == 201
    assert gateway.bidders == ["ann", "ann", "bob"]


@pytest.mark.parametrize("in_chunks", [False, True], ids=["plain", "in chunks"])
@pytest.mark.parametrize("ends_by", ["expiry", "revocation", "another key", "nothing"])
async def test_a_token_that_ends_while_the_body_of_its_bid_is_held_back(ends_by: str, in_chunks: bool) -> None:
    """1. The head of a bid comes, and its caller is let in. 2. The token ends. 3. The body's last byte comes."""
    gateway = Gateway()

    async def end() -> None:
        await eventually(lambda: gateway.let_in == 1)
        if ends_by == "expiry":
            gateway.now_s += 3_600
        elif ends_by == "revocation":
            gateway.revocations.add({"t:a-token": Revocation(NOW_S, NOW_S + 3_600)})
        elif ends_by == "another key":
            gateway.keys._secrets = SecretPair("AUTH_HS256_SECRET", "t" * 32)

    async with connected(gateway) as connection:
        status = await connection.bid(signed(**LASTING), in_chunks=in_chunks, before_the_end=end)
    assert (status, gateway.bidders) == ((201, ["ann"]) if ends_by == "nothing" else (401, []))


async def test_when_the_keys_change_no_open_connection_is_believed_on() -> None:
    gateway = Gateway()
    token = signed(**LASTING)
    async with connected(gateway) as connection:
        assert await connection.bid(token) == 201
        gateway.keys._secrets, gateway.keys.version = SecretPair("AUTH_HS256_SECRET", "t" * 32), 1
        assert await connection.bid(token) == 401
        assert await connection.bid(signed("t" * 32, **LASTING)) == 201


async def test_another_token_on_the_same_connection_is_another_caller() -> None:
    gateway = Gateway()
    async with connected(gateway) as connection:
        for user in ("ann", "bob", "ann"):
            assert await connection.bid(signed(**LASTING | {"sub": user})) == 201
        assert await connection.bid(signed(**LASTING)[:-2]) == 401, "a part of one is none"
    assert gateway.bidders == ["ann", "bob", "ann"]


@pytest.mark.parametrize("limits", [{"per_caller": 0.5}, {"per_address": 0.5}], ids=["of a caller", "of an address"])
async def test_a_limit_holds_on_a_connection_that_stays_open(limits: dict[str, float]) -> None:
    """5 at once, and one more in two seconds."""
    gateway = Gateway(**limits)
    token = signed(**LASTING)
    async with connected(gateway) as connection:
        assert [await connection.bid(token) for _ in range(7)] == [201] * 5 + [429] * 2
        gateway.now_s += 2
        assert [await connection.bid(token) for _ in range(2)] == [201, 429]


async def test_a_body_that_is_no_json_is_refused_where_one_was_taken_before() -> None:
    gateway = Gateway()
    token = signed(**LASTING)
    async with connected(gateway) as connection:
        assert await connection.bid(token, lines="content-type: application/json\r\n") == 201
        assert await connection.bid(token, lines="content-type: text/plain\r\n") == 415
        assert await connection.bid(token, lines="origin: https://evil.example\r\n") == 403
