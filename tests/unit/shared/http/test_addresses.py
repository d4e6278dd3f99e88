"""How connections are counted by the address of their client."""

from __future__ import annotations

import pytest

from shared.http.addresses import ATTEMPTS_BURST_MIN, Addresses, counted_as


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", "unix:"),
        ("x" * 500, "x" * 64),
    ],
)
def test_what_an_address_counts_as(address: str, counted: str) -> None:
    assert counted_as(address) == counted


def test_each_address_has_its_own_room() -> None:
    addresses = Addresses(2)
    for _ in range(2):
        assert not addresses.is_full("a")
        addresses.enter("a")
    assert addresses.is_full("a")
    assert not addresses.is_full("b")
    addresses.leave("a")
    assert not addresses.is_full("a")


def test_nothing_is_kept_of_addresses_without_connections() -> None:
    addresses = Addresses(2)
    addresses.enter("a")
    addresses.leave("a")
    addresses.leave("a")
    assert len(addresses) == 0


def test_no_bound_needs_no_counts() -> None:
    addresses = Addresses(0)
    for _ in range(5):
        addresses.enter("a")
    assert not addresses.is_full("a")
    assert len(addresses) == 0


def attempts(addresses: Addresses, address: str, now_s: float) -> int:
    """How many attempts are allowed when it tries as often as it can."""
    count = 0
    while count < 10_000 and addresses.attempt(address, now_s):
        count += 1
    return count


def test_an_address_may_ask_for_all_its_connections_at_once_and_then_at_a_rate() -> None:
    addresses = Addresses(500, attempts_per_s=20)
    assert attempts(addresses, "a", 0) == 500
    assert attempts(addresses, "b", 0) == 500
    assert attempts(addresses, "a", 0.5) == 10, "those that were refused are not held against it"
    assert attempts(addresses, "a", 1_000) == 500


def test_few_connections_at_once_may_be_new_ones_again_and_again() -> None:
    assert attempts(Addresses(1, attempts_per_s=20), "a", 0) == ATTEMPTS_BURST_MIN


@pytest.mark.parametrize("addresses", [Addresses(0, attempts_per_s=20), Addresses(5, attempts_per_s=0)])
def test_without_a_bound_every_attempt_is_one(addresses: Addresses) -> None:
    assert attempts(addresses, "a", 0) == 10_000


def test_who_asked_long_ago_is_forgotten_and_nobody_else_is() -> None:
    addresses = Addresses(100, attempts_per_s=10)
    attempts(addresses, "a", 0)
    addresses.attempt("b", 0)
    addresses.forget(5)
    assert addresses.remembered == 1
    assert attempts(addresses, "a", 5) == 50
    addresses.forget(100)
    assert addresses.remembered == 0
