"""Keys that an issuer changes: they are fetched beside the event loop, seldom, and within bounds, whatever comes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.fetch import FetchFailed, checked_url, fetch
from shared.identity.jwks import name_of_key
from shared.identity.keys import KEPT_S, FetchedKeys
from shared.identity.principals import Principals
from shared.identity.settings import IdentitySettings, identity_of
from shared.identity.tokens import Tokens
from tests.tcp import serving
from tests.unit.shared.identity.issuing import (
    AUDIENCE,
    ISSUER,
    SECRET,
    headers_of,
    jwk_of,
    jwks,
    private_key,
    settings_of,
    signed,
)
from tests.waiting import eventually

ONE = jwks(jwk_of(private_key("ES256"), "one"))
TWO = jwks(jwk_of(private_key("ES256"), "one"), jwk_of(private_key("EdDSA"), "two"))


class Issuer:
    """Answers with a document, or fails."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = ONE
        self.threads: set[int] = set()
        self.at_once = self.most_at_once = 0

    def __call__(self) -> bytes:
        self.threads.add(threading.get_ident())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.01)
        self.at_once -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def running(issuer: Issuer, **options: Any) -> AsyncIterator[FetchedKeys]:
    keys = FetchedKeys(issuer, **({"every_s": 0.1, "refresh_s": 60.0} | options))
    task = asyncio.create_task(keys.run())
    try:
        yield keys
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_before_the_keys_are_there_nobody_is_refused_for_good() -> None:
    keys = FetchedKeys(Issuer())
    assert keys.trouble is not None
    with pytest.raises(KeysAway):
        keys.find("one", "ES256")


async def test_keys_are_fetched_in_a_thread() -> None:
    issuer = Issuer()
    async with running(issuer) as keys:
        await eventually(lambda: keys.trouble is None)
        assert keys.find("one", "ES256") is not None
    assert threading.get_ident() not in issuer.threads


async def test_a_new_key_is_found_when_a_token_names_it() -> None:
    issuer = Issuer()
    async with running(issuer) as keys:
        await eventually(lambda: keys.trouble is None)
        before, issuer.answer = keys.version, TWO

        def is_found() -> bool:
            try:
                return keys.find("two", "EdDSA") is not None
            except (KeysAway, Unauthenticated):
                return False

        await eventually(is_found)
        assert keys.version == before + 1


async def test_keys_that_are_withdrawn_are_kept_for_who_tells_others() -> None:
    issuer = Issuer()
    async with running(issuer, refresh_s=0.1) as keys:
        await eventually(lambda: keys.trouble is None)
        name = name_of_key(keys.find("one", "ES256")[0])
        assert (len(name), keys.withdrawn) == (32, set())
        issuer.answer = TWO
        await eventually(lambda: keys.version == 2)
        assert keys.withdrawn == set(), "one has come, and none is gone"
        issuer.answer = b'{"keys": []}'
        await eventually(lambda: keys.version == 3)
        assert (len(keys.withdrawn), name in keys.withdrawn) == (2, True)
        issuer.answer = ONE
        await eventually(lambda: keys.version == 4)
        assert name not in keys.withdrawn, "it is believed again"
    assert name_of_key("s" * 32) == "", "of a secret there is no digest"


async def test_a_flood_of_unknown_keys_costs_a_fetch_now_and_then() -> None:
    issuer = Issuer()
    async with running(issuer, every_s=0.2) as keys:
        await eventually(lambda: keys.trouble is None)
        began_s, asked = time.monotonic(), 0
        while time.monotonic() < began_s + 0.7:
            for _ in range(200):
                asked += 1
                with pytest.raises((KeysAway, Unauthenticated)):
                    keys.find(f"unknown-{asked}", "ES256")
                assert keys.find("one", "ES256") is not None
            await asyncio.sleep(0)
        took_s = time.monotonic() - began_s
        assert asked > 1_000
        assert 2 <= keys.fetches_total <= 2 + took_s / 0.2
    assert issuer.most_at_once == 1


async def test_an_issuer_that_fails_is_not_asked_again_and_again() -> None:
    issuer = Issuer()
    issuer.answer = FetchFailed("away")
    async with running(issuer, every_s=0.2) as keys:
        began_s = time.monotonic()
        while time.monotonic() < began_s + 0.7:
            with pytest.raises(KeysAway):
                keys.find("one", "ES256")
            await asyncio.sleep(0.01)
        assert 2 <= keys.fetches_total <= 2 + (time.monotonic() - began_s) / 0.2


async def test_an_unknown_key_is_refused_when_the_newest_keys_lack_it() -> None:
    async with running(Issuer(), every_s=30) as keys:
        await eventually(lambda: keys.trouble is None)
        with pytest.raises(Unauthenticated) as refused:
            keys.find("two", "EdDSA")
        assert not refused.value.is_lasting
        with pytest.raises(Unauthenticated):
            keys.find("one", "HS256")


async def test_no_algorithm_that_is_not_supported_makes_it_fetch() -> None:
    issuer = Issuer()
    async with running(issuer, every_s=0.01) as keys:
        await eventually(lambda: keys.trouble is None)
        await asyncio.sleep(0.05)
        for algorithm in ("none", "HS256", "HS512", "ES512", ""):
            with pytest.raises(Unauthenticated):
                keys.find("unknown", algorithm)
        assert not keys._wanted.is_set()
        assert keys.fetches_total == 1


async def test_while_the_issuer_is_away_its_keys_stay_for_a_day() -> None:
    issuer, later_s = Issuer(), 0.0
    async with running(issuer, every_s=0.01, refresh_s=0.01, now_s=lambda: time.monotonic() + later_s) as keys:
        await eventually(lambda: keys.trouble is None)
        for answer in (FetchFailed("away"), OSError("away"), b"<html>", b'{"keys":{}}'):
            issuer.answer, before = answer, keys.fetches_total
            await eventually(lambda before=before: keys.fetches_total > before + 1)  # type: ignore[misc]
            assert keys.trouble is not None
            assert keys.find("one", "ES256") is not None
        later_s = KEPT_S
        with pytest.raises(KeysAway):
            keys.find("one", "ES256")
        issuer.answer = ONE
        await eventually(lambda: keys.trouble is None)
        assert keys.find("one", "ES256") is not None


async def test_a_key_that_was_withdrawn_is_forgotten_without_being_asked_for() -> None:
    issuer = Issuer()
    issuer.answer = TWO
    async with running(issuer, every_s=0.01, refresh_s=0.01) as keys:
        await eventually(lambda: keys.trouble is None)
        assert keys.find("two", "EdDSA") is not None
        issuer.answer = ONE
        await eventually(lambda: keys.version == 2)
        with pytest.raises((KeysAway, Unauthenticated)):
            keys.find("two", "EdDSA")


@pytest.mark.parametrize(
    "now",
    [
        b'{"keys":[]}',
        jwks(jwk_of(private_key("ES256"), "one", d="x")),
        jwks(jwk_of(private_key("ES256"), "one", use="enc")),
    ],
    ids=["none", "a private one", "for other uses"],
)
async def test_the_last_key_is_withdrawn_like_any_other(now: bytes) -> None:
    """The issuer says so, in good form: it is not away."""
    issuer = Issuer()
    async with running(issuer, every_s=0.01, refresh_s=0.01) as keys:
        await eventually(lambda: keys.trouble is None)
        issuer.answer = now
        await eventually(lambda: keys.version == 2)
        with pytest.raises((KeysAway, Unauthenticated)):
            keys.find("one", "ES256")
        assert keys.trouble is not None, "/ready says so"
        assert keys.can_verify


async def test_another_way_of_writing_the_same_keys_is_no_other_version() -> None:
    """Else who forces a fetch would make everybody's token be verified again."""
    issuer = Issuer()
    async with running(issuer, every_s=0.01, refresh_s=0.01) as keys:
        await eventually(lambda: keys.version == 1)
        issuer.answer = ONE[:-1] + b',"now":1}'
        before = keys.fetches_total
        await eventually(lambda: keys.fetches_total > before + 2)
        assert keys.version == 1
        assert keys.find("one", "ES256") is not None


async def test_who_is_known_is_believed_no_longer_than_the_keys() -> None:
    issuer, later_s = Issuer(), 0.0
    async with running(issuer, every_s=0.01, now_s=lambda: time.monotonic() + later_s) as keys:
        assert not keys.can_verify
        await eventually(lambda: keys.trouble is None)
        assert keys.can_verify
        principals = Principals(Tokens(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0), keys)
        headers = headers_of(signed(private_key("ES256"), "ES256", headers={"kid": "one"}))
        assert principals.of(headers) is not None
        issuer.answer = FetchFailed("away")
        later_s = KEPT_S + 1
        with pytest.raises(KeysAway):
            principals.of(headers)
        assert not keys.can_verify


def answering(*pieces: bytes, pause_s: float = 0.0) -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write_eof()
        await reader.read()

    return handle


OK = b"HTTP/1.1 200 OK\r\n"


async def got(handle: Any, **options: Any) -> bytes:
    async with serving(handle) as port:
        return await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/keys?v=1", **options)


async def test_a_document_is_fetched() -> None:
    assert await got(answering(OK, b"content-length: 2\r\n\r\n", b"{}")) == b"{}"
    assert await got(answering(OK, b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")) == b"{}"


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ((b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",), "status 302"),
        ((b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",), "status 500"),
        ((OK, b"content-length: 2000\r\n\r\n", b"x" * 2_000), "more than 1000 bytes"),
        ((OK, b"\r\n", b"x" * 2_000), "more than 1000 bytes"),
        ((OK, b"transfer-encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2_000), "more than 1000 bytes"),
        ((OK, b"content-length: 20\r\n\r\n", b"{}"), "cut short"),
        ((OK, b"x: y\r\n" * 200, b"\r\n"), "more than 100 headers"),
        ((b"nonsense\r\n\r\n",), "BadStatusLine"),
        ((), "RemoteDisconnected"),
    ],
)
async def test_answers_that_are_no_document(pieces: tuple[bytes, ...], why: str) -> None:
    with pytest.raises(FetchFailed, match=why):
        await got(answering(*pieces), bytes_max=1_000)


@pytest.mark.parametrize("before", [(), (OK, b"\r\n")], ids=["in the head", "in the body"])
async def test_who_sends_a_byte_now_and_then_is_cut_off(before: tuple[bytes, ...]) -> None:
    began_s = time.monotonic()
    with pytest.raises(FetchFailed, match="no answer within"):
        await got(answering(*before, *[b"H"] * 400, pause_s=0.02), within_s=0.3)
    assert time.monotonic() - began_s < 4


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost@issuer.example/keys",
        "https://user:password@issuer.example/keys",
        "file:///etc/passwd",
        "https:///keys",
        "https://issuer.example:0/",
        "https://[::1/",
        "issuer.example",
        "",
    ],
)
def test_keys_come_by_a_safe_way_alone(url: str) -> None:
    with pytest.raises(ValueError, match="must be an https address"):
        checked_url(url)


def test_ways_that_are_safe() -> None:
    for url in ("https://issuer.example/keys", "http://127.0.0.1:8090/keys", "http://localhost/keys", "http://[::1]/k"):
        assert checked_url(url) == url


OPEN: dict[str, Any] = dict.fromkeys(("auth_hs256_secret", "auth_issuer", "auth_audience"), "")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"auth_mode": "open"}, "AUTH_HS256_SECRET is set, and AUTH_MODE is open"),
        (OPEN | {"auth_mode": "open", "auth_issuer": "x"}, "AUTH_ISSUER is set, and AUTH_MODE is open"),
        ({"auth_issuer": ""}, "needs AUTH_ISSUER"),
        (OPEN, "needs AUTH_ISSUER and AUTH_AUDIENCE"),
        ({"auth_hs256_secret": ""}, "needs one of .*; set is none"),
        ({"auth_jwks": ONE.decode()}, "needs one of .*; set is AUTH_JWKS and AUTH_HS256_SECRET"),
        ({"auth_hs256_secret": "s" * 31}, "at least 32 bytes"),
        (OPEN | {"auth_hs256_secret_also": "o" * 32}, "AUTH_HS256_SECRET_ALSO is set, and AUTH_HS256_SECRET"),
        ({"auth_hs256_secret": "", "auth_jwks": "{}"}, "must be a JSON Web Key Set"),
        ({"auth_hs256_secret": "", "auth_jwks_url": "http://issuer.example"}, "must be an https address"),
        ({"auth_hs256_secret": "", "auth_jwks_file": "/nowhere/keys"}, "cannot be read"),
        ({"auth_hs256_secret": "", "auth_jwks_file": "/dev/zero"}, "more than 65536 bytes"),
        ({"auth_leeway_s": 301}, "300"),
        ({"auth_mode": "none"}, "open"),
    ],
)
def test_wrong_combinations_are_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as told:
        settings_of(**changes)
    assert SECRET not in str(told.value)


def test_by_default_nothing_is_asked() -> None:
    assert identity_of(IdentitySettings()) is None


def test_keys_from_each_place(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(ONE)
    token = headers_of(signed(private_key("ES256"), "ES256", headers={"kid": "one"}))
    inline = identity_of(settings_of(auth_hs256_secret="", auth_jwks=ONE.decode()))
    assert inline is not None
    assert inline.fetched is None
    assert inline.principals.of(token) is not None
    for place in ({"auth_jwks_file": str(file)}, {"auth_jwks_url": "https://issuer.example/keys"}):
        found = identity_of(settings_of(auth_hs256_secret="", **place))
        assert found is not None
        assert found.fetched is not None
    assert (settings_of().auth_issuer, settings_of().auth_audience) == (ISSUER, AUDIENCE)
