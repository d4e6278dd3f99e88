"""Who is charged for a request: the client's address, also behind a proxy of ours, and then the caller."""

from __future__ import annotations

import math

import pytest

from api_gateway.contract.problems import problem_of
from api_gateway.door.rates import ADDRESS, CALLER, FREE, ITEMS, Near, RateLimited, Rates
from shared.http.proxies import Proxies
from shared.pacing.buckets import Rate


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def rates_of(clock: Clock, *, per_caller: int = 0, per_address: int = 0, proxies: str = "") -> Rates:
    return Rates(per_caller=per_caller, per_address=per_address, proxies=Proxies(proxies), clock=clock)


def test_without_limits_nothing_is_counted() -> None:
    rates = rates_of(Clock())
    assert rates.enter("192.0.2.1", []) is FREE
    assert FREE.of("ann") is FREE
    FREE.charge(10_000)


def test_an_address_is_charged_before_anybody_is_known() -> None:
    clock = Clock()
    rates = rates_of(clock, per_address=2)
    for _ in range(20):
        rates.enter("192.0.2.1", [])
    with pytest.raises(RateLimited) as refused:
        rates.enter("192.0.2.1", [])
    rates.enter("192.0.2.2", [])
    assert refused.value.policy == ADDRESS
    assert rates.refused_total == {ADDRESS: 1, CALLER: 0, ITEMS: 0}
    clock.now_s = 0.5
    rates.enter("192.0.2.1", [])


def test_a_caller_is_charged_wherever_it_calls_from() -> None:
    rates = rates_of(Clock(), per_caller=1, per_address=1_000)
    for number in range(10):
        rates.enter(f"192.0.2.{number}", []).of("ann")
    with pytest.raises(RateLimited) as refused:
        rates.enter("192.0.2.99", []).of("ann")
    assert refused.value.policy == CALLER
    rates.enter("192.0.2.99", []).of("bob")


def test_who_pays_is_the_caller_or_the_address_and_one_is_never_taken_for_the_other() -> None:
    rates = rates_of(Clock(), per_caller=10, per_address=10)
    known, stranger = rates.enter("192.0.2.1", []).of("192.0.2.2"), rates.enter("192.0.2.2", [])
    assert known.payer == rates.enter("192.0.2.9", []).of("192.0.2.2").payer
    assert stranger.payer == "192.0.2.2" != known.payer
    assert FREE.payer == ""


def test_many_units_at_once_are_charged_to_both_or_to_none() -> None:
    rates = rates_of(Clock(), per_caller=10, per_address=20)
    account = rates.enter("192.0.2.1", []).of("ann")
    account.charge(99)
    with pytest.raises(RateLimited):
        account.charge(1)
    # The refused one did not charge the address: it has 200, of which 100 are used.
    other = rates.enter("192.0.2.1", []).of("bob")
    other.charge(99)
    with pytest.raises(RateLimited) as refused:
        rates.enter("192.0.2.1", [])
    assert refused.value.policy == ADDRESS


def test_who_has_used_most_is_told_before_anything_is_refused() -> None:
    clock = Clock()
    rates = rates_of(clock, per_caller=2, per_address=1_000)
    told = [rates.enter("192.0.2.1", []).of("ann").near for _ in range(20)]
    assert told[:15] == [None] * 15
    assert [near and near.headers["ratelimit"] for near in told[15:]] == [
        f'"caller";r={left};t={math.ceil((20 - left) / 2)}' for left in (4, 3, 2, 1, 0)
    ]
    assert told[15] is not None
    assert told[15].headers == {"ratelimit-policy": '"caller";q=20;w=10', "ratelimit": '"caller";r=4;t=8'}
    assert rates.enter("192.0.2.1", []).of("bob").near is None
    clock.now_s += 5
    assert rates.enter("192.0.2.1", []).of("ann").near is None
    batch = rates.enter("192.0.2.1", []).of("bob")
    batch.charge(15)
    assert batch.near is not None
    assert batch.near.headers["ratelimit"] == '"caller";r=4;t=8'
    assert batch.charge(0) is None
    assert batch.charge(1) == batch.near == Near(CALLER, Rate(2, 20), left=3, reset_s=9)


def test_items_of_batches_have_a_bucket_of_their_own() -> None:
    rates = Rates(per_caller=2, per_address=0, items_per_caller=10, proxies=Proxies(""), clock=Clock())
    account = rates.enter("192.0.2.1", []).of("sam")
    account.charge_items(60)
    account.charge(19)
    with pytest.raises(RateLimited) as refused:
        account.charge_items(50)
    assert (refused.value.policy, refused.value.retry_after_s) == (ITEMS, 1)
    assert "10 a second" in str(refused.value)
    rates.enter("192.0.2.1", []).of("eve").charge_items(100)


def test_what_a_refused_client_is_told() -> None:
    rates = rates_of(Clock(), per_address=2)
    account = rates.enter("192.0.2.1", [])
    account.charge(19)
    with pytest.raises(RateLimited) as refused:
        account.charge(10)
    status, body, headers = problem_of(refused.value)
    assert status == 429
    assert headers == {
        "retry-after": "5",
        "ratelimit-policy": '"address";q=20;w=10',
        "ratelimit": '"address";r=0;t=5',
    }
    assert b'"code":"RATE_LIMITED"' in body
    assert b"try again in 5 s" in body


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "counted"),
    [
        ("", "192.0.2.1", [b"198.51.100.7"], "192.0.2.1"),  # of a stranger it is a claim
        ("10.0.0.0/8", "192.0.2.1", [b"198.51.100.7"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
        (
            "10.0.0.0/8",
            "10.0.0.1",
            [b"203.0.113.9, 198.51.100.7"],
            "198.51.100.7",
        ),  # the client may send the header too
        ("10.0.0.0/8", "10.0.0.1", [b"203.0.113.9", b"198.51.100.7, 10.2.2.2"], "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", [b"10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.0/8", "10.0.0.1", [b"198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", [b"[2001:db8:1:2::9]:4711"], "2001:db8:1:2::/64"),
        ("10.0.0.0/8", "10.0.0.1", [b"2001:db8:1:2::9"], "2001:db8:1:2::/64"),
        ("10.0.0.0/8", "10.0.0.1", [], ""),
        ("10.0.0.0/8", "10.0.0.1", [b" , "], ""),
        ("10.0.0.0/8", "::ffff:10.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
        ("*", "192.0.2.1", [b"203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", [b"x" * 500], "x" * 64),
    ],
)
def test_whose_address_it_is(proxies: str, peer: str, forwarded: list[bytes], counted: str) -> None:
    rates = rates_of(Clock(), proxies=proxies)
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    for _ in range(2):  # the second time it is remembered
        assert rates.address(peer, headers) == counted


def test_a_client_that_writes_the_header_itself_has_no_more_than_others() -> None:
    rates = rates_of(Clock(), per_address=1, proxies="10.0.0.1")
    for number in range(10):
        rates.enter("10.0.0.1", [(b"x-forwarded-for", b"203.0.113.%d, 198.51.100.7" % number)])
    with pytest.raises(RateLimited):
        rates.enter("10.0.0.1", [(b"x-forwarded-for", b"203.0.113.99, 198.51.100.7")])
    rates.enter("10.0.0.1", [(b"x-forwarded-for", b"198.51.100.8")])


def test_a_proxy_that_does_not_tell_is_not_counted_as_one_client() -> None:
    rates = rates_of(Clock(), per_address=1, proxies="10.0.0.1")
    for _ in range(100):
        rates.enter("10.0.0.1", [])
        rates.enter(None, [])


def test_what_is_remembered_of_peers_has_a_bound() -> None:
    rates = rates_of(Clock())
    for number in range(25_000):
        rates.address(f"2001:db8::{number:x}", [])
    assert len(rates._known) <= 10_000


def test_what_is_remembered_of_what_proxies_say_has_a_bound() -> None:
    """Clients write as much into that header as they like."""
    rates = rates_of(Clock(), proxies="10.0.0.1")
    for number in range(11_000):
        claims = b"x" * (300 if number % 2 else 1)
        headers = [(b"x-forwarded-for", b"%b%d, 198.51.100.7" % (claims, number))]
        assert rates.address("10.0.0.1", headers) == "198.51.100.7"
    assert 0 < len(rates._told) <= 10_000
    assert max(map(len, rates._told)) <= 256
