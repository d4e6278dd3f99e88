"""Credentials go into URLs and come out of them again, whatever is in them; what is shown has none."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
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
