"""Which tokens a gateway with ``AUTH_MODE=jwt`` believes, for how long, and where it never sends one."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api_gateway.routes.batches import BYTES_MAX
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from shared.identity.tokens import Role
from tests.integration.gateway.identity.access_world import ITEMS, Callers
from tests.unit.api_gateway.images.pictures import png

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_slash_too_many_leads_to_a_path_and_to_no_host(callers: Callers) -> None:
    """The host is whatever a request says, and behind a proxy the scheme is another one: the token would go there."""
    for path, leads_to in (
        ("/items/lot/", "/items/lot"),
        ("/ops/?x=1&y=%20", "/ops?x=1&y=%20"),
        ("/api/v1/ops/acts/", "/api/v1/ops/acts"),
    ):
        answer = await callers.http.get(path, headers={"host": "evil.example"})
        assert (answer.status_code, answer.headers["location"]) == (307, leads_to)
    for path in ("//evil.example/", "/nothing/", "/items/lot//", "/api/v1/"):
        answer = await callers.http.get(f"{str(callers.http.base_url).rstrip('/')}{path}")
        assert (answer.status_code, answer.headers.get("location")) == (404, None), path


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/api/v1/images", "image/png", png()),
        ("/api/v1/feed-ticket", "application/json", b"{}"),
        ("/api/v1/items:batch", "application/json", b'{"items":[{"name":"late"}]}'),
        (f"{ITEMS}/none/pause", "application/json", b'{"reason":"late"}'),
    ],
    ids=["image", "ticket", "batch", "operation"],
)
async def test_who_is_revoked_while_the_body_is_held_back_is_refused(
    callers: Callers, path: str, media_type: str, body: bytes
) -> None:
    user = f"late-{secrets.token_hex(4)}"

    async def held_back() -> AsyncIterator[bytes]:
        yield body[:-1]
        done = await callers.call("oda", Role.OPERATOR, "POST", "/api/v1/revocations", {"user_id": user})
        assert done.status_code == 201
        yield body[-1:]

    headers = {"authorization": f"Bearer {callers.token(user, *Role)}", "content-type": media_type}
    headers["content-length"] = str(len(body))
    answer = await callers.http.post(path, content=held_back(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")


async def test_a_link_of_somebody_who_was_revoked_signs_nobody_in(callers: Callers) -> None:
    made = await callers.call("vic", Role.BIDDER, "POST", "/api/v1/sign-in-code")
    done = await callers.call("oda", Role.OPERATOR, "POST", "/api/v1/revocations", {"user_id": "vic"})
    assert (made.status_code, done.status_code) == (201, 201)
    refused = await callers.http.post("/api/v1/sign-in", json={"code": made.json()["code"]})
    assert (refused.status_code, refused.json()["code"], "token" in refused.json()) == (404, "CODE_NOT_FOUND", False)


async def test_a_code_is_exchanged_once_and_is_nothing_else(callers: Callers) -> None:
    made = await callers.call("bea", Role.BIDDER, "POST", "/api/v1/sign-in-code")
    ticket = await callers.call("bea", Role.BIDDER, "POST", "/api/v1/feed-ticket", {})
    assert (made.headers["cache-control"], made.json()["expires_in"]) == ("no-store", 120)
    code = made.json()["code"]
    first, *others = [
        await callers.http.post("/api/v1/sign-in", json={"code": said})
        for said in (code, code, ticket.json()["ticket"], secrets.token_urlsafe(16), "x", "*" * 64)
    ]
    me = await callers.http.get("/api/v1/me", headers={"authorization": f"Bearer {first.json()['token']}"})
    assert (first.headers["cache-control"], me.json()["user_id"]) == ("no-store", "bea")
    assert [(each.status_code, each.json()["code"]) for each in others] == [(404, "CODE_NOT_FOUND")] * 5
    # The only call without a token that has a body takes no long one.
    long = await callers.http.post("/api/v1/sign-in", content=b" " * 100_000)
    assert long.status_code == 413


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def bad_tokens(callers: Callers) -> Iterator[tuple[str, dict[str, str]]]:
    good = callers.token("bea", Role.BIDDER)
    claims = jwt.decode(good, options={"verify_signature": False})
    yield "none", {"authorization": f"Bearer {jwt.encode(claims, '', algorithm='none')}"}
    yield "HS256", {"authorization": f"Bearer {jwt.encode(claims, 's' * 32, algorithm='HS256')}"}
    yield "expired", {"authorization": f"Bearer {callers.token('bea', Role.BIDDER, ttl_s=-60)}"}
    yield "cut", {"authorization": f"Bearer {good[:-6]}"}
    yield "basic", {"authorization": f"Basic {good}"}
    yield "cookie", {"cookie": f"token={good}; authorization=Bearer {good}"}
    yield "another header", {"x-authorization": f"Bearer {good}", "proxy-authorization": f"Bearer {good}"}


async def test_bad_tokens_on_both_roads_of_a_bid(callers: Callers) -> None:
    item_id = await callers.item()
    path = f"{ITEMS}/{item_id}/bid"
    good = callers.token("bea", Role.BIDDER)
    body = b'{"amount":5}'
    for name, headers in bad_tokens(callers):
        for content in (body, in_pieces(body)):
            answer = await callers.http.post(path, content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED"), name
    for content in (body, in_pieces(body)):
        in_address = await callers.http.post(f"{path}?token={good}&access_token={good}", content=content)
        assert in_address.status_code == 401
        twice = [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")]
        assert (await callers.http.post(path, content=content, headers=twice)).status_code == 401
    for content in (b'{"user_id":"bob","amount":5}', in_pieces(b'{"user_id":"bob","amount":5}')):
        answer = await callers.http.post(path, content=content, headers={"authorization": f"Bearer {good}"})
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    for spelling in (f"/api/v1/items/{item_id[:-1]}%{ord(item_id[-1]):02x}/bid", f"//api/v1/items/{item_id}/bid"):
        assert (await callers.http.post(spelling, content=body)).status_code in (401, 404)
    seen = (await callers.http.get(f"{ITEMS}/{item_id}")).json()
    assert (seen["bid_count"], seen["seq"]) == (0, 0)
    for content in (body, in_pieces(b'{"user_id":"bea","amount":6}')):
        answer = await callers.http.post(path, content=content, headers={"authorization": f"bearer {good}"})
        assert answer.status_code == 201, answer.text


async def test_a_socket_ends_with_its_token(callers: Callers, stack: Stack) -> None:
    url = stack.urls.gateway_url.replace("http", "ws", 1) + "/api/v1/bids"
    headers = {"authorization": f"Bearer {callers.token('bea', Role.BIDDER, ttl_s=2)}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    foreign = headers | {"origin": "https://elsewhere.example"}
    for address in (url, f"{url}?token={callers.token('bea', Role.BIDDER)}"):
        with pytest.raises(InvalidStatus):
            await connect(address, additional_headers=foreign if address == url else {}, proxy=None)


async def test_no_body_is_awaited_of_a_stranger(stack: Stack) -> None:
    parts = urlsplit(stack.urls.gateway_url)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /api/v1/bids:batch HTTP/1.1\r\nHost: x\r\nContent-Length: {BYTES_MAX}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    writer.write(head.encode())
    status = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert status.split()[1] == b"401"


async def test_a_gateway_whose_settings_make_no_sense_ends(stack: Stack) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", API_GATEWAY),
        env=stack.service_env | {"AUTH_HS256_SECRET": "s" * 40},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 2
    assert said.splitlines() == [
        b"error: AUTH_MODE=jwt needs one of AUTH_JWKS_URL, AUTH_JWKS_FILE, AUTH_JWKS, AUTH_HS256_SECRET; "
        b"set is AUTH_JWKS and AUTH_HS256_SECRET"
    ]
