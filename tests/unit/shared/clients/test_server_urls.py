"""Credentials go into URLs and come out of them again, whatever is in them; what is shown has none."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.server_urls import UrlInvalid, credentials_of, password_of, with_credentials, without_password

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@given(PASSWORDS)
def test_a_password_is_found_again_and_never_shown(password: str) -> None:
    url = with_credentials("postgresql://bidding@db.example:5432/bidding?sslmode=require", password=password)
    assert credentials_of(url) == ("bidding", password)
    assert password_of(url) == password
    split = urlsplit(url)
    assert (split.hostname, split.port, split.path, split.query) == (
        "db.example",
        5432,
        "/bidding",
        "sslmode=require",
    )
    assert without_password(url) == "postgresql://bidding:***@db.example:5432/bidding?sslmode=require"


@given(PASSWORDS)
def test_every_server_of_a_list_gets_it(password: str) -> None:
    url = with_credentials("tls://a:4222,b:4222", user="b:ob", password=password)
    assert [part.rpartition("@")[2] for part in url.split(",")] == ["a:4222", "b:4222"]
    assert all(part.startswith("tls://b%3Aob:") for part in url.split(","))
    assert credentials_of(url) == ("b:ob", password)


def test_redis_has_a_password_without_a_user() -> None:
    url = with_credentials("rediss://cache:6379/0", password="s e/cret")
    assert url == "rediss://:s%20e%2Fcret@cache:6379/0"
    assert password_of(url) == "s e/cret"


def test_the_same_password_twice_is_fine_and_another_one_is_not() -> None:
    assert with_credentials("nats://u:p%40@h", password="p@") == "nats://u:p%40@h"
    with pytest.raises(UrlInvalid) as caught:
        with_credentials("nats://u:first@h", password="second")
    assert "first" not in str(caught.value)
    assert "second" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "redis://", "redis:///0", "/var/run/redis.sock"])
def test_without_a_host_there_is_no_place_for_it(url: str) -> None:
    with pytest.raises(UrlInvalid, match="no host"):
        with_credentials(url, password="p")


def test_without_credentials_there_are_none() -> None:
    assert credentials_of("nats://h:4222") is None
    assert credentials_of("nats://token@h:4222") is None
    assert password_of("redis://h") == ""


# What is no secret has neither capitals nor digits here; whatever is shown of a secret is seen.
SECRETS = st.text("ABZ019:/?#[]@!$&'()*+,;=%-._~ \\\"\n", min_size=1, max_size=12)
ONE_SERVER = ("redis://", "rediss://", "postgresql://", "nats://", "tls://", "nats+cloudmap://")
WITH_A_PASSWORD = (
    "{scheme}user:{secret}@host.example/db",
    "{scheme}:{secret}@host.example",
    "{scheme}user:{secret}@host.example/db?sslmode=require",
    "{scheme}host.example/db?password={secret}",
    "{scheme}user@host.example/db?user=x&password={secret}&sslmode=require",
    "{scheme}host.example?%70assword={secret}",
    "{scheme}user:{secret}@one.example,two.example",
    "user:{secret}@host.example",
    "{secret}@host.example",
)


@given(st.sampled_from(ONE_SERVER), st.sampled_from(WITH_A_PASSWORD), SECRETS)
@example("redis://", "{scheme}:{secret}@host.example", "A#B")
@example("nats://", "{scheme}user:{secret}@host.example/db", "A/B")
@example("postgresql://", "{scheme}user:{secret}@host.example/db", "1,A")
@example("postgresql://", "{scheme}host.example/db?password={secret}", "A,B")
@example("postgresql://", "{scheme}host.example/db?password={secret}", "A&B@1#2")
@example("postgresql://", "{scheme}user:{secret}@host.example/db", "A@0,B")
def test_a_password_that_is_not_encoded_is_not_shown_either(scheme: str, form: str, secret: str) -> None:
    shown = without_password(form.format(scheme=scheme, secret=secret))
    assert not re.search(r"[A-Z0-9]", shown), shown
    if "{scheme}" in form:
        assert shown.startswith(scheme)


@pytest.mark.parametrize("scheme", ["nats://", "tls://"])
def test_a_token_of_nats_is_not_shown(scheme: str) -> None:
    assert without_password(f"{scheme}TOKEN@h:4222") == f"{scheme}***@h:4222"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6479/0", "redis://127.0.0.1:6479/0"),
        ("redis://[::1]:6479", "redis://[::1]:6479"),
        ("postgresql://bidding@h:1/bidding", "postgresql://bidding@h:1/bidding"),
        ("postgresql://u:p@h:1/bidding?sslmode=require", "postgresql://u:***@h:1/bidding?sslmode=require"),
        ("postgresql:///bidding?host=/run/postgresql", "postgresql:///bidding?host=/run/postgresql"),
        ("postgresql://h/db?password=p&sslmode=require", "postgresql://h/db?***"),
        ("tls://u:p@one:4222,two:4222", "tls://u:***@one:4222,two:4222"),
        ("tls://u:p@one:4222,tls://u:p@two:4222", "tls://u:***@one:4222,tls://u:***@two:4222"),
        ("nats+cloudmap://space/nats", "nats+cloudmap://space/nats"),
        ("redis://:a#b@h:6379/0", "redis://***@h:6379"),
        ("nats://u:a/b@h:4222", "nats://***@h:4222"),
        ("http://[::1", "http://***"),
        ("", ""),
    ],
)
def test_what_is_no_password_is_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
