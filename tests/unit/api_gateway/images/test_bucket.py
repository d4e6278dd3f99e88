"""Images in a bucket, against a client of S3 that only counts and fails; test_images_in_a_bucket.py has a real one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api_gateway.images.bucket import BucketStore
from api_gateway.images.errors import ImagesFull, StoreAway
from api_gateway.images.store import FILE_BYTES_MIN, REMOVED_MAX

OLD, NEW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 9, tzinfo=UTC)
NOW_S = NEW.timestamp()
SECRET = "arn:aws:iam::123456789012:role/gateway is not authorized"


class Missing(Exception):
    """The error with which botocore says that an object is missing."""

    def __init__(self) -> None:
        self.response = {"Error": {"Code": "404"}}


class CountingS3:
    """Takes what is put, and lists so many objects of which the last ones are old."""

    def __init__(self, *, new: int = 0, old: int = 0) -> None:
        self.put: list[str] = []
        self.deleted: list[str] = []
        self._listed = [(f"n{number}", NEW) for number in range(new)] + [(f"o{number}", OLD) for number in range(old)]

    def head_object(self, **_: str) -> None:
        raise Missing

    def put_object(self, **put: Any) -> None:
        self.put.append(put["Key"])

    def get_paginator(self, _: str) -> CountingS3:
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self._listed), 1_000):
            yield {"Contents": [{"Key": k, "LastModified": at} for k, at in self._listed[start : start + 1_000]]}

    def delete_objects(self, **deleted: Any) -> None:
        self.deleted += [each["Key"] for each in deleted["Delete"]["Objects"]]


class ForbiddingS3:
    """Says more than strangers are to read."""

    def head_object(self, **_: str) -> None:
        raise PermissionError(SECRET)


def store_of(client: Any, folder: Path, *, day_bytes_max: int = 10**9) -> BucketStore:
    return BucketStore(client, "our-bucket", folder, day_bytes_max=day_bytes_max, copies_bytes_max=1)


def put(store: BucketStore, folder: Path, number: int) -> None:
    path = folder / "arriving"
    path.write_bytes(b"x")
    store.put(path, f"{number:064x}.png")


def test_so_much_is_put_into_it_on_one_day(tmp_path: Path) -> None:
    client = CountingS3()
    store = store_of(client, tmp_path, day_bytes_max=2 * FILE_BYTES_MIN)
    put(store, tmp_path, 1)
    put(store, tmp_path, 2)
    with pytest.raises(ImagesFull):
        put(store, tmp_path, 3)
    assert len(client.put) == 2


def test_a_sweep_comes_to_all_that_wait(tmp_path: Path) -> None:
    client = CountingS3(new=REMOVED_MAX + 500, old=30)
    assert store_of(client, tmp_path).sweep(NOW_S).removed == 30
    assert client.deleted == [f"o{number}" for number in range(30)]


def test_a_sweep_removes_so_many(tmp_path: Path) -> None:
    client = CountingS3(new=500, old=REMOVED_MAX + 800)
    assert store_of(client, tmp_path).sweep(NOW_S).removed == REMOVED_MAX
    assert len(client.deleted) == REMOVED_MAX


def test_what_s3_says_is_for_the_operator_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(StoreAway) as refused:
        store_of(ForbiddingS3(), tmp_path).has(f"{1:064x}.png")
    assert str(refused.value) == "the images cannot be reached now; try again"
    assert SECRET in caplog.text
    assert "our-bucket" in caplog.text
