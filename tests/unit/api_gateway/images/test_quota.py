"""How much may be uploaded at a time, and on one day."""

from __future__ import annotations

import pytest

from api_gateway.images.errors import ImageQuota
from api_gateway.images.quota import (
    AT_ONCE_EACH_MAX,
    AT_ONCE_MAX,
    BYTES_PER_S,
    FILES_ALL_MAX,
    FILES_EACH_MAX,
    Pace,
    Quota,
)
from api_gateway.images.store import FILE_BYTES_MIN
from shared.domain.errors import Overloaded

DAY_S = 86_400


def test_one_uploader_s_day() -> None:
    quota = Quota(each_bytes_max=100, all_bytes_max=1_000)
    quota.count("ann", 60, 10.0)
    quota.count("ann", 40, 20.0)
    with pytest.raises(ImageQuota, match="tomorrow") as refused:
        quota.count("ann", 1, DAY_S - 30)
    assert refused.value.retry_after_s == 31
    quota.count("bob", 100, 30.0)
    quota.count("ann", 100, DAY_S + 1.0)


def test_what_all_share() -> None:
    quota = Quota(each_bytes_max=100, all_bytes_max=250)
    for who in ("ann", "bob"):
        quota.count(who, 100, 0.0)
    quota.count("cat", 50, 0.0)
    with pytest.raises(ImageQuota, match="all share"):
        quota.count("dan", 1, 0.0)
    quota.count("dan", 1, DAY_S)


def test_small_files_are_counted_as_what_they_cost() -> None:
    quota = Quota(each_bytes_max=3 * FILE_BYTES_MIN, all_bytes_max=10**9)
    for _ in range(3):
        quota.count_file("ann", 0.0)
    with pytest.raises(ImageQuota, match="bytes"):
        quota.count_file("ann", 0.0)
    quota.count_file("ann", DAY_S)


def test_so_many_files_on_one_day() -> None:
    quota = Quota(each_bytes_max=10**9, all_bytes_max=10**12)
    for _ in range(FILES_EACH_MAX):
        quota.count_file("ann", 0.0)
    with pytest.raises(ImageQuota, match="your room of 2000 images"):
        quota.count_file("ann", 0.0)
    for number in range(FILES_ALL_MAX - FILES_EACH_MAX):
        quota.count_file(f"u{number % 1_000}", 0.0)
    with pytest.raises(ImageQuota, match="images that all share"):
        quota.count_file("late", 0.0)
    quota.count_file("ann", DAY_S)


def test_many_uploaders_are_counted_in_bounded_memory() -> None:
    quota = Quota(each_bytes_max=10, all_bytes_max=10**9)
    for number in range(10_000):
        quota.count(f"u{number}", 1, 0.0)
    for number in range(10):
        quota.count(f"late{number}", 1, 0.0)
    with pytest.raises(ImageQuota):
        quota.count("late10", 1, 0.0)  # all who came late share one room
    quota.count("u7", 9, 0.0)


def test_how_many_at_once() -> None:
    quota = Quota(each_bytes_max=1, all_bytes_max=1)
    for _ in range(AT_ONCE_EACH_MAX):
        quota.enter("ann")
    with pytest.raises(Overloaded, match="wait for one of them"):
        quota.enter("ann")
    others = [f"u{number}" for number in range(AT_ONCE_MAX - AT_ONCE_EACH_MAX)]
    for who in others:
        quota.enter(who)
    with pytest.raises(Overloaded, match="too many"):
        quota.enter("late")
    quota.leave("ann")
    quota.enter("late")


def test_all_uploads_together_have_one_pace() -> None:
    pace = Pace()
    tenth = BYTES_PER_S // 10
    waits = [pace.wait_s(tenth, 100.0) for _ in range(3)]
    assert waits == pytest.approx([0.1, 0.2, 0.3])
    assert pace.wait_s(tenth, 100.25) == pytest.approx(0.15)
    # What was not used is not saved up.
    assert pace.wait_s(tenth, 200.0) == pytest.approx(0.1)
