"""How connections are counted by the address of their client."""

from __future__ import annotations

import pytest

from broadcast_service.addresses import Addresses, counted_as


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
