"""What a key may look like. Checked where keys come in from outside; inside they are taken as they are."""

from __future__ import annotations

import re
from typing import Final

from shared.read_cache.errors import KeyInvalid

KEY_LENGTH_MAX: Final = 512
"""Characters, all of them ASCII, so bytes too."""

_KEY: Final = re.compile(r"[A-Za-z0-9_.~@:/?&=,;+%*()!$'-]{1,512}", re.ASCII)
_GROUP: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


def checked_key(key: str) -> str:
    """The key itself. It may hold what a path and a query of a URL may hold.

    Raises:
        KeyInvalid: it is empty, too long, or has other characters.
    """
    if _KEY.fullmatch(key):
        return key
    if not key:
        raise KeyInvalid(key, "is empty")
    if len(key) > KEY_LENGTH_MAX:
        raise KeyInvalid(key, f"has {len(key)} characters; {KEY_LENGTH_MAX} are allowed")
    raise KeyInvalid(key, "may hold letters and digits of ASCII, and -_.~@:/?&=,;+%*()!$', and nothing else")


def checked_group(name: str) -> str:
    """The name itself: a lower-case letter, then up to 31 lower-case letters, digits, ``_`` and ``-``.

    Raises:
        ValueError: it looks otherwise. A group is named by code, not by a reader.
    """
    if not _GROUP.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a group of the cache")
    return name
