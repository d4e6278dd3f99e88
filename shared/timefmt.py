"""Instants: integer microseconds since the Unix epoch in the code, RFC 3339 in UTC on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# RFC 3339, section 5.6. `datetime` would accept all of ISO 8601: weeks, days of the year, dates without time.
_DATE_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-5][0-9]:)([0-5][0-9]|60)(?:\.([0-9]+))?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)

INSTANT_MAX_US: Final = 4_102_444_800_000_000
"""The start of the year 2100, the latest accepted start or end."""


def to_rfc3339(instant_us: int) -> str:
    """``1_700_000_000_000_000`` gives ``"2023-11-14T22:13:20.000000Z"``."""
    return (EPOCH + timedelta(microseconds=instant_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_datetime(instant: datetime) -> int:
    """Microseconds since the epoch, exact.

    Raises:
        ValueError: the datetime has no UTC offset.
    """
    if instant.tzinfo is None:
        raise ValueError("the instant needs a UTC offset, for example 2030-01-31T18:00:00Z")
    return (instant - EPOCH) // _MICROSECOND


def from_rfc3339(text: str) -> int:
    """Microseconds since the epoch; digits beyond the microsecond are cut off.

    Raises:
        ValueError: not an instant of RFC 3339, or a leap second, which has no number in Unix time.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:64]!r} is no date and time with a UTC offset")
    date, minute, second, fraction, offset = match.groups()
    if second == "60":
        raise ValueError(f"{text[:64]!r} is a leap second, which has no place in Unix time; take the second after it")
    whole = datetime.fromisoformat(f"{date}T{minute}{second}{'+00:00' if offset in 'Zz' else offset}")
    return from_datetime(whole) + int((fraction or "")[:6].ljust(6, "0"))
