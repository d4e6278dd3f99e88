"""Instants: integer microseconds since the Unix epoch inside, RFC 3339 in UTC on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

INSTANT_MAX_US: Final = 4_102_444_800_000_000
"""The start of the year 2100, the latest start or end that is accepted."""


def to_rfc3339(instant_us: int) -> str:
    """``1_700_000_000_000_000`` gives ``"2023-11-14T22:13:20.000000Z"``."""
    return (EPOCH + timedelta(microseconds=instant_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_datetime(instant_us: int) -> datetime:
    """The same instant as an aware datetime, exact to the microsecond."""
    return EPOCH + timedelta(microseconds=instant_us)


def from_datetime(instant: datetime) -> int:
    """Microseconds since the epoch, exact.

    Raises:
        ValueError: the datetime has no UTC offset.
    """
    if instant.tzinfo is None:
        raise ValueError("the instant needs a UTC offset, for example 2030-01-31T18:00:00Z")
    return (instant - EPOCH) // _MICROSECOND
