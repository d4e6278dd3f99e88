"""Aliases: stable, of the form that the feed's description names, told apart by ear, and seldom the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from shared import aliases
from shared.aliases import PATTERN, AliasSettings, alias_of, naming, public_id

ROOT = Path(__file__).parents[3]
WORDS = {"adjectives": aliases._ADJECTIVES, "nouns": aliases._NOUNS}


def test_an_alias_is_the_same_every_time_and_another_on_another_item() -> None:
    # The words and their order are part of what is promised: whoever changes them renames every bidder.
    assert alias_of("vase", "ann", 0) == "smooth-plover-180"
    assert len({alias_of("vase", "ann", 0), alias_of("bowl", "ann", 0), alias_of("vase", "bob", 0)}) == 3
    # Neither half of the pair runs into the other.
    assert alias_of("vase", "ann", 0) != alias_of("vas", "eann", 0)


def test_every_alias_has_the_documented_form() -> None:
    made = [alias_of("vase", f"user-{number}", 0) for number in range(2_000)]
    assert [alias for alias in made if re.fullmatch(PATTERN, alias) is None] == []
    assert f'pattern: "{PATTERN}"' in (ROOT / "docs" / "asyncapi.yaml").read_text()


def test_bidders_of_an_item_seldom_share_an_alias() -> None:
    made = [alias_of("vase", f"user-{number}", 0) for number in range(2_000)]
    # Of 59 million names 2,000 bidders share 0.03 on average.
    assert len(set(made)) >= 1_999
    # All words come up, so the names are spread.
    assert len({alias.split("-")[0] for alias in made}) == len({alias.split("-")[1] for alias in made}) == 256


def is_one_letter_away(one: str, other: str) -> bool:
    """Whether a letter that is added, dropped or changed makes one word the other."""
    if len(one) == len(other):
        return sum(a != b for a, b in zip(one, other, strict=True)) <= 1
    short, long = sorted((one, other), key=len)
    return len(long) - len(short) == 1 and any(long[:at] + long[at + 1 :] == short for at in range(len(long)))


@pytest.mark.parametrize("kind", WORDS)
def test_words_can_be_told_apart_by_ear(kind: str) -> None:
    words = WORDS[kind]
    assert len(set(words)) == len(words) == 256
    assert [word for word in words if re.fullmatch("[a-z]{3,8}", word) is None] == []
    assert [pair for pair in combinations(words, 2) if is_one_letter_away(*pair)] == []


def forget() -> None:
    for kept in (aliases._settings, aliases.alias_secrets, aliases._hides_ids, aliases.naming):
        kept.cache_clear()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Settings are read anew, and those of the other tests afterwards."""
    forget()
    yield monkeypatch
    monkeypatch.undo()
    forget()


def test_without_tokens_clients_are_told_the_id_as_ever(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("AUTH_MODE", "open")
    assert public_id("vase", "ann", 0) == "ann"


def test_with_tokens_the_public_is_told_the_alias(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("AUTH_MODE", "jwt")
    fresh.setenv("ALIAS_SECRET", "s" * 32)
    assert public_id("vase", "ann", 0) == alias_of("vase", "ann", 0)
    assert "ann" not in public_id("vase", "ann", 0)
    # Not linked from item to item.
    assert public_id("vase", "ann", 0) != public_id("bowl", "ann", 0)


def test_who_names_bidders_otherwise_says_so(fresh: pytest.MonkeyPatch) -> None:
    """A cache node with other settings must not be asked for what it keeps."""
    told = set()
    for mode, secret in (("open", "s" * 32), ("jwt", "s" * 32), ("jwt", "t" * 32), ("jwt", "t" * 32)):
        forget()
        fresh.setenv("AUTH_MODE", mode)
        fresh.setenv("ALIAS_SECRET", secret)
        told.add(naming())
    assert len(told) == 3
    assert {len(each) for each in told} == {8}


def test_an_item_keeps_the_names_of_its_creation_while_the_secret_is_replaced(fresh: pytest.MonkeyPatch) -> None:
    at_us = 1_896_112_800_000_000
    by_secret = {}
    for name in ("s" * 32, "t" * 32):
        forget()
        fresh.setenv("ALIAS_SECRET", name)
        by_secret[name] = alias_of("vase", "ann", 0)
    forget()
    fresh.setenv("ALIAS_SECRET_ALSO", "s" * 32)
    fresh.setenv("ALIAS_SECRET_SINCE", "2030-01-31T18:00:00Z")
    assert [alias_of("vase", "ann", at) for at in (at_us - 1, at_us)] == [by_secret["s" * 32], by_secret["t" * 32]]
    assert aliases.alias_secrets().also_used == 1
    # An item that is not there yet: today, that is before.
    assert alias_of("vase", "ann", None) == by_secret["s" * 32]
    assert public_id("vase", "ann", at_us) == "ann"
    fresh.setenv("AUTH_MODE", "jwt")
    aliases._settings.cache_clear()
    aliases._hides_ids.cache_clear()
    assert [public_id("vase", "ann", at) for at in (0, at_us)] == list(by_secret.values())


def test_processes_share_what_they_keep_where_the_pair_and_its_instant_are_the_same(fresh: pytest.MonkeyPatch) -> None:
    told = []
    for also, since in (
        ("", ""),
        ("o" * 32, "2030-01-31T18:00:00Z"),
        ("o" * 32, "2030-01-31T19:00:00+01:00"),
        ("o" * 32, "2030-01-31T18:00:01Z"),
        ("p" * 32, "2030-01-31T18:00:00Z"),
    ):
        forget()
        for name, value in (("SECRET", "s" * 32), ("SECRET_ALSO", also), ("SECRET_SINCE", since)):
            fresh.setenv(f"ALIAS_{name}", value)
        told.append(naming())
    assert told[1] == told[2], "the same instant"
    assert len(set(told)) == 4


@pytest.mark.parametrize("secret", ["a", "s" * 31])
def test_with_tokens_the_secret_is_too_long_to_be_tried(fresh: pytest.MonkeyPatch, secret: str) -> None:
    fresh.setenv("ALIAS_SECRET", secret)
    AliasSettings()
    fresh.setenv("AUTH_MODE", "jwt")
    with pytest.raises(ValueError, match="at least 32 bytes"):
        AliasSettings()
