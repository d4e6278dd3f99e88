"""How many single-use secrets a process gives out."""

from __future__ import annotations

import secrets

import pytest

from shared.identity.once import Ration, is_secret, once_key
from shared.pacing.buckets import Rate


@pytest.mark.parametrize("text", ["", "short", "a" * 21, "a" * 23, "a" * 21 + "*", "a" * 22 + "\n", "ä" * 22])
def test_what_is_no_secret_is_not_asked_for(text: str) -> None:
    assert not is_secret(text)


def test_a_secret_s_key_tells_neither_it_nor_another_kind_s() -> None:
    secret = secrets.token_urlsafe(16)
    assert is_secret(secret)
    assert secret not in once_key("a", secret)
    assert once_key("a", secret) != once_key("b", secret)


def test_a_ration_for_each_and_for_all() -> None:
    ration = Ration(of_all=Rate(per_s=1, burst=5), of_one=Rate(per_s=1, burst=2), users_max=10)
    assert [ration.spend("ann", 0) for _ in range(3)] == [True, True, False]
    assert [ration.spend(user, 0) for user in ("bob", "cyd", "dan", "eve")] == [True, True, True, False]
    # A second later one more in all, for whoever is first.
    assert [ration.spend(user, 1) for user in ("ann", "bob")] == [True, False]


def test_names_without_end_take_no_room_and_give_nobody_a_new_ration() -> None:
    ration = Ration(of_all=Rate(per_s=1, burst=1_000), of_one=Rate(per_s=1, burst=1), users_max=3)
    assert ration.spend("ann", 0)
    for number in range(50):
        assert ration.spend(f"user-{number}", 0)
        # A user who goes on asking is remembered.
        assert not ration.spend("ann", 0)
    assert len(ration._users) == 3
