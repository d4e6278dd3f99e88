"""How many connections there may be, in all and of one address, and whose are not counted so."""

from __future__ import annotations

import pytest

from shared.http.connection_limits import ConnectionLimits, Refusal
from shared.http.proxies import Proxies, checked_proxies


def entered(limits: ConnectionLimits, *addresses: str) -> list[str | int]:
    """What each is given, or the status of its refusal."""
    answers = [limits.enter(address) for address in addresses]
    return [answer.status if isinstance(answer, Refusal) else answer for answer in answers]


def test_an_address_is_full_by_itself_and_has_room_again_when_one_leaves() -> None:
    limits = ConnectionLimits(10, 2, Proxies(""))
    assert entered(limits, "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2") == [
        "192.0.2.1",
        "192.0.2.1",
        429,
        "192.0.2.2",
    ]
    limits.leave("192.0.2.1")
    assert entered(limits, "::ffff:192.0.2.1", "192.0.2.1") == ["192.0.2.1", 429]
    assert (limits.connections, limits.refused_total) == (3, 2)


def test_a_household_is_one_address() -> None:
    limits = ConnectionLimits(0, 1, Proxies(""))
    assert entered(limits, "2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:3::1") == [
        "2001:db8:1:2::/64",
        429,
        "2001:db8:1:3::/64",
    ]


def test_connections_of_proxies_count_in_all_only() -> None:
    limits = ConnectionLimits(3, 1, Proxies("10.0.0.0/8, 192.0.2.9"))
    assert entered(limits, "10.1.2.3", "::ffff:10.1.2.3", "192.0.2.9", "192.0.2.1") == ["", "", "", 503]
    limits.leave("")
    assert entered(limits, "192.0.2.1") == ["192.0.2.1"]


def test_without_limits_all_may_come() -> None:
    limits = ConnectionLimits(0, 0, Proxies(""))
    assert 429 not in entered(limits, *["192.0.2.1"] * 5_000)


@pytest.mark.parametrize(
    ("setting", "address", "is_one"),
    [
        ("", "127.0.0.1", False),
        ("*", "192.0.2.1", True),
        ("192.0.2.0/24", "192.0.2.1", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fd12::1%eth0", True),
        ("192.0.2.0/24", "unix:", False),
    ],
)
def test_who_is_a_proxy(setting: str, address: str, is_one: bool) -> None:
    assert Proxies(checked_proxies(setting)).has(address) is is_one


@pytest.mark.parametrize("setting", ["10.0.0.7/16", "proxy.example", "*, 10.0.0.7"])
def test_what_can_match_nobody_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="must be addresses"):
        checked_proxies(setting)
