from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.timefmt import from_datetime, from_rfc3339, to_rfc3339

NEW_YEAR = 1_893_456_000_000_000


@pytest.mark.parametrize(
    ("text", "instant_us"),
    [
        ("2030-01-01T00:00:00Z", NEW_YEAR),
        ("2030-01-01t00:00:00z", NEW_YEAR),
        ("2030-01-01T00:00:00+00:00", NEW_YEAR),
        ("2030-01-01T00:00:00-00:00", NEW_YEAR),
        ("2030-01-01T05:30:00+05:30", NEW_YEAR),
        ("2029-12-31T16:00:00-08:00", NEW_YEAR),
        ("2030-01-01T00:00:00.5Z", NEW_YEAR + 500_000),
        ("2030-01-01T00:00:00.000001Z", NEW_YEAR + 1),
        ("2030-01-01T00:00:00.0000019999Z", NEW_YEAR + 1),
        ("1969-12-31T23:59:59.75Z", -250_000),
        ("2028-02-29T00:00:00Z", 1_835_395_200_000_000),
    ],
)
def test_an_instant_is_read_exactly(text: str, instant_us: int) -> None:
    assert from_rfc3339(text) == instant_us


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2030-01-01", "20300101T000000Z", "2030-W01-1T00:00:00Z", "2030-001T00:00:00Z"),
        *("2030-01-01T00:00Z", "2030-01-01T00:00:00", "2030-01-01T00:00:00+01", "2030-01-01T00:00:00+0100"),
        *("2030-01-01T00:00:00,5Z", "2030-01-01T00:00:00.Z", "2030-01-01 00:00:00Z", "2030-01-01T24:00:00Z"),
        *("2030-13-01T00:00:00Z", "2030-02-30T00:00:00Z", "2029-02-29T00:00:00Z", "0000-01-01T00:00:00Z"),
        *("2030-01-01T00:60:00Z", "2030-01-01T00:00:61Z", "2030-01-01T00:00:00+24:00", "2030-01-01T00:00:00+00:60"),
        *("2030-01-01T00:00:00Z\n", " 2030-01-01T00:00:00Z", "+2030-01-01T00:00:00Z", "2030-01-01T00:00:00+01:00:00"),
        "\u0662030-01-01T00:00:00Z",
        "2030-01-01T00:00:00." + "1" * 5_000,
    ],
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        from_rfc3339(text)
    assert len(str(caught.value)) < 200


def test_a_leap_second_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="leap second"):
        from_rfc3339("2016-12-31T23:59:60Z")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1)), st.integers(-23 * 60, 23 * 60))
def test_what_the_library_writes_is_read_back(instant: datetime, offset_min: int) -> None:
    there = instant.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    assert from_rfc3339(there.isoformat()) == from_datetime(there)
    assert from_rfc3339(to_rfc3339(from_datetime(there))) == from_datetime(there)
    assert there.astimezone(UTC) == there
