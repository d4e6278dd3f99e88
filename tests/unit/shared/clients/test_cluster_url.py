"""How a URL names a cluster, and where its shards are."""

from __future__ import annotations

import pytest

from shared import names
from shared.clients.cluster.addresses import Address, ClusterUrl, is_cluster_url
from shared.clients.cluster.slots import SLOTS, shard_of_words
from shared.clients.redis import open_redis
from shared.redis_layout.keys import REVOCATIONS_KEY
from shared.server_urls import with_credentials, without_password


def test_a_url_names_one_node_or_several() -> None:
    url = ClusterUrl.parse("redis+cluster://a:7000,b:7001,[::1]:7002/0")
    assert url.seeds == (("a", 7000), ("b", 7001), ("::1", 7002))
    assert url.url_of(Address("::1", 7002)) == "redis://[::1]:7002/0"
    assert ClusterUrl.parse("redis+cluster://a").seeds == (("a", 6379),)


@pytest.mark.parametrize(
    "text",
    [
        "rediss+cluster://app:p%40ss@a:1,b:2?ssl_cert_reqs=none",
        "rediss+cluster://app:p%40ss@a:1,rediss+cluster://app:p%40ss@b:2?ssl_cert_reqs=none",
    ],
)
def test_each_node_gets_the_scheme_the_password_and_the_options(text: str) -> None:
    url = ClusterUrl.parse(text)
    assert url.seeds == (("a", 1), ("b", 2))
    assert url.url_of(Address("c", 3)) == "rediss://app:p%40ss@c:3/0?ssl_cert_reqs=none"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("redis://a:1", "redis\\+cluster://"),
        ("redis+cluster://", "lacks a host"),
        ("redis+cluster://a:1,:2", "lacks a host"),
        ("redis+cluster://:secret@a:port", "no number"),
        ("redis+cluster://:secret@a:1/3", "no database but 0"),
    ],
)
def test_what_is_no_such_url_is_refused_without_its_password(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        ClusterUrl.parse(text)
    assert "secret" not in str(raised.value)


def test_only_the_scheme_says_that_it_is_a_cluster() -> None:
    assert is_cluster_url("redis+cluster://a:1")
    assert is_cluster_url("REDISS+CLUSTER://a:1")
    assert not is_cluster_url("redis://a:1,b:2")
    with pytest.raises(ValueError, match="lacks a host"):
        open_redis("redis+cluster://")


def test_the_slots_of_the_shards_are_those_that_redis_computes() -> None:
    # By `CLUSTER KEYSLOT {s00}:item:x` and so on.
    assert (len(SLOTS), len(set(SLOTS.values()))) == (64, 64)
    assert SLOTS["s00"] == 12_958


@pytest.mark.parametrize(
    ("words", "shard"),
    [
        (("HGET", "{s07}:item:vase", "price"), "s07"),
        (("HGET", b"{s63}:item:vase", b"{s01}:item:other"), "s63"),
        (("EVAL", "return {s01}", 1, "{s02}:cursors", "{s03}:x"), "s02"),
        (("EVALSHA", "abc", 0), None),
        (("HGET", REVOCATIONS_KEY, "epoch"), "s00"),
        (("EVALSHA", "abc", 1, REVOCATIONS_KEY.encode(), "{s01}:x"), "s00"),
        (("GET", "{s64}:item:vase"), None),
        (("GET", "s07:item:vase"), None),
        (("PING",), None),
    ],
)
def test_the_shard_of_a_command_is_that_of_its_first_key(
    words: tuple[str | bytes | int, ...], shard: str | None
) -> None:
    assert shard_of_words(words) == shard
    assert shard is None or shard in names.SHARDS


def test_a_password_that_is_given_beside_the_url_is_for_every_node_and_shown_nowhere() -> None:
    text = with_credentials("rediss+cluster://a:1,b:2", password="p/ss")
    url = ClusterUrl.parse(text)
    assert url.seeds == (("a", 1), ("b", 2))
    assert url.url_of(Address("c", 3)) == "rediss://:p%2Fss@c:3/0"
    assert "ss@" not in without_password(text)
    assert without_password("redis+cluster://u:secret@a:1,b:2") == "redis+cluster://u:***@a:1,b:2"
