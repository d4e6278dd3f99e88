"""Images in a folder: until an item uses them, for good, and no more than there is room for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from api_gateway.images.errors import ImagesFull, StoreAway
from api_gateway.images.folder import FolderStore
from api_gateway.images.store import FILE_BYTES_MIN, REMOVED_MAX, UNUSED_KEEP_S

LATER_S = UNUSED_KEEP_S + 60


def named(number: int) -> str:
    return f"{number:064x}.png"


def store_in(folder: Path, *, bytes_max: int = 10_000, free_bytes_min: int = 0) -> FolderStore:
    return FolderStore(folder, bytes_max=bytes_max, free_bytes_min=free_bytes_min)


def put(store: FolderStore, folder: Path, number: int, content: bytes = b"image") -> str:
    path = folder / "arriving.tmp"
    path.write_bytes(content)
    store.put(path, named(number))
    assert not path.exists()
    return named(number)


def test_it_waits_is_kept_and_can_be_read_all_the_time(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    name = put(store, tmp_path, 1)
    waiting = store.find(name)
    assert waiting is not None
    assert waiting.read_bytes() == b"image"
    assert store.has(name)
    assert store.keep(name)
    assert store.keep(name)  # for another item
    kept = store.find(name)
    assert kept is not None
    assert kept.read_bytes() == b"image"
    assert not waiting.exists()


def test_what_is_not_there_is_not_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert not store.keep(named(1))
    assert not store.has(named(1))
    assert store.find(named(1)) is None


def test_only_what_waits_for_too_long_is_removed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    used, unused = put(store, tmp_path, 1), put(store, tmp_path, 2)
    store.keep(used)
    now_s = time.time()
    assert store.sweep(now_s + UNUSED_KEEP_S - 60).removed == 0
    assert store.sweep(now_s + LATER_S).removed == 1
    assert store.has(used)
    assert not store.has(unused)
    assert not store.keep(unused)


def test_the_same_upload_again_waits_anew(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    name = put(store, tmp_path, 1)
    path = store.find(name)
    assert path is not None
    old_s = time.time() - LATER_S
    os.utime(path, (old_s, old_s))
    put(store, tmp_path, 1)
    assert store.sweep(time.time()).removed == 0
    # And of one that is kept nothing waits.
    store.keep(name)
    put(store, tmp_path, 1)
    assert [each.name for each in (tmp_path / "waiting").rglob("*.png")] == []


def test_an_item_takes_it_while_another_gateway_sweeps(tmp_path: Path) -> None:
    ours, theirs = store_in(tmp_path), store_in(tmp_path)
    name = put(ours, tmp_path, 1)
    assert ours.keep(name)
    assert theirs.sweep(time.time() + LATER_S).removed == 0
    assert theirs.has(name)
    assert theirs.keep(name)


def test_room_for_so_much_also_after_a_restart(tmp_path: Path) -> None:
    store = store_in(tmp_path, bytes_max=2 * FILE_BYTES_MIN + 50)
    put(store, tmp_path, 1, b"x" * 40)
    put(store, tmp_path, 2, b"x" * 40)
    put(store, tmp_path, 2, b"x" * 40)  # takes its own place
    for each in (store, store_in(tmp_path, bytes_max=2 * FILE_BYTES_MIN + 50)):
        path = tmp_path.parent / "third"
        path.write_bytes(b"x" * 40)
        with pytest.raises(ImagesFull):
            each.put(path, named(3))
        assert not each.has(named(3))
    assert store.sweep(time.time() + LATER_S).removed == 2
    put(store, tmp_path, 3, b"x" * 40)


def test_the_disk_is_not_filled(tmp_path: Path) -> None:
    store = store_in(tmp_path, free_bytes_min=2**62)
    path = tmp_path / "arriving.tmp"
    path.write_bytes(b"x")
    with pytest.raises(ImagesFull):
        store.put(path, named(1))


def test_other_files_have_room_on_the_disk(tmp_path: Path) -> None:
    if not os.statvfs(tmp_path).f_files:
        pytest.skip("this file system does not count files")
    store = FolderStore(tmp_path, bytes_max=10_000, free_bytes_min=0, free_files_min=2**62)
    path = tmp_path / "arriving.tmp"
    path.write_bytes(b"x")
    with pytest.raises(ImagesFull):
        store.put(path, named(1))


def test_a_sweep_comes_to_all_that_wait_and_removes_so_many(tmp_path: Path) -> None:
    """Those who upload for nothing must not hide what is old behind what is new."""
    olds, news = 500, REMOVED_MAX + 500
    for number in range(news + olds):
        path = tmp_path / "waiting" / f"{number % 256:02x}" / named(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if number % 21 == 0 and number // 21 < olds:
            os.utime(path, (0, 0))
    store = store_in(tmp_path)
    assert store.sweep(time.time()).removed == olds
    assert store.sweep(time.time() + LATER_S).removed == REMOVED_MAX
    assert store.sweep(time.time() + LATER_S).removed == news - REMOVED_MAX


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "waiting").write_text("a file where a folder should be")
    path = tmp_path / "arriving.tmp"
    path.write_bytes(b"x")
    with pytest.raises(StoreAway, match="folder of the images"):
        store_in(tmp_path).put(path, named(1))
