"""What a key may look like."""

from __future__ import annotations

import pytest

from shared.read_cache.errors import KeyInvalid
from shared.read_cache.keys import KEY_LENGTH_MAX, checked_group, checked_key


@pytest.mark.parametrize("key", ["a", "items/a-lot", "items?status=closed&sort=-end_time&cursor=YQ==", "x" * 512])
def test_keys(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "is empty"),
        ("x" * (KEY_LENGTH_MAX + 1), "has 513 characters; 512 are allowed"),
        ("a b", "may hold"),
        ("a\n", "may hold"),
        ("a\x00", "may hold"),
        ("ä", "may hold"),
        ("\N{FULLWIDTH DIGIT ONE}", "may hold"),
    ],
)
def test_what_is_no_key_is_told_so(key: str, says: str) -> None:
    with pytest.raises(KeyInvalid, match=says) as caught:
        checked_key(key)
    assert (caught.value.code, caught.value.field) == ("KEY_INVALID", "key")
    assert len(str(caught.value)) < 300


def test_groups() -> None:
    assert checked_group("items") == "items"
    for name in ("", "Items", "a:b", "x" * 33, "1"):
        with pytest.raises(ValueError, match="cannot name a group"):
            checked_group(name)
