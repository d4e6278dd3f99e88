"""Taking an image in, piece by piece; and that nothing of it stays behind, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from threading import Event
from types import FrameType

import pytest
from typing_extensions import override

from api_gateway.images import jpeg as jpeg_reader
from api_gateway.images.addresses import PREFIX
from api_gateway.images.errors import (
    ImageBroken,
    ImageDimensions,
    ImageQuota,
    ImagesOff,
    ImageTooLarge,
    ImageTypeWrong,
    StoreAway,
    UploadTooSlow,
)
from api_gateway.images.folder import FolderStore
from api_gateway.images.images import READERS_MAX, Images, _Arriving
from api_gateway.images.picture import Kind
from api_gateway.images.quota import AT_ONCE_MAX, Pace, Quota
from api_gateway.images.store import FILE_BYTES_MIN, REMOVED_MAX, Swept
from shared.domain.errors import Overloaded, TermsInvalid
from tests.unit.api_gateway.images.pictures import HTML, PLACE, SVG, WHOLE, jpeg, png, segment
from tests.waiting import eventually

BYTES_MAX = 100_000


async def in_pieces(file: bytes, size: int = 1_000) -> AsyncIterator[bytes]:
    for start in range(0, len(file), size):
        yield file[start : start + size]
    yield b""


class House:
    """Images in a folder of a test."""

    def __init__(self, folder: Path, *, pace: Pace | None = None, slow_s: float = 5.0) -> None:
        self.folder = folder
        self.arriving = folder / "arriving"
        self.arriving.mkdir()
        store = FolderStore(folder, bytes_max=10**7, free_bytes_min=0)
        quota = Quota(each_bytes_max=300_000, all_bytes_max=10**7)
        self.images = Images(store, self.arriving, quota=quota, bytes_max=BYTES_MAX, pace=pace, slow_s=slow_s)

    async def take(self, file: bytes, media_type: str = "image/png", size: int = 1_000) -> str:
        return (await self.images.take(in_pieces(file, size), media_type, "ann")).url

    async def is_clean(self) -> None:
        """Nothing of what arrived is left."""
        await eventually(lambda: list(self.arriving.iterdir()) == [], seconds=5)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.images.close()


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_an_image_comes_in_and_goes_out(house: House, kind: Kind, size: int) -> None:
    file = WHOLE[kind](31, 17)
    taken = await house.images.take(in_pieces(file, size), kind.media_type, "ann")
    assert (taken.kind, taken.width, taken.height, taken.size) == (kind, 31, 17, len(file))
    opened = await house.images.open(taken.url.removeprefix("/images/"))
    assert opened is not None
    assert opened[1] == len(file)
    assert await house.images.read(opened[0]) == file
    house.images.close_file(opened[0])
    await house.images.keep([taken.url, "https://elsewhere.example/a.jpg"])
    await house.is_clean()


async def test_two_photographs_that_differ_in_their_place_alone_are_one(house: House) -> None:
    here = await house.take(jpeg(more=segment(0xE1, b"Exif\0\0" + PLACE)), "image/jpeg")
    assert here == await house.take(jpeg(more=segment(0xE1, b"Exif\0\0elsewhere")), "image/jpeg")


@pytest.mark.parametrize(
    ("file", "media_type", "error"),
    [
        (png(), "image/svg+xml", ImageTypeWrong),
        (png(), "text/html", ImageTypeWrong),
        (png(), "", ImageTypeWrong),
        (png(), "image/jpeg", ImageTypeWrong),
        (SVG, "image/png", ImageTypeWrong),
        (HTML, "image/jpeg", ImageTypeWrong),
        (b"", "image/png", ImageTypeWrong),
        (b"\x89P", "image/png", ImageTypeWrong),
        (png()[:-1], "image/png", ImageBroken),
        (png(20_000, 20_000, rows=0), "image/png", ImageDimensions),
        (png() + bytes(BYTES_MAX), "image/png", ImageTooLarge),
    ],
)
async def test_what_is_refused_leaves_nothing(
    house: House, file: bytes, media_type: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await house.take(file, media_type)
    await house.is_clean()
    assert not (house.folder / "waiting").exists()


async def test_no_more_than_its_beginning_is_read_of_what_is_no_image(house: House) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield HTML

    with pytest.raises(ImageTypeWrong):
        await house.images.take(endless(), "image/png", "ann")
    assert read == 1


async def test_one_who_uploads_too_much_has_to_wait_and_others_do_not(house: House) -> None:
    large = png() + bytes(BYTES_MAX - 1_000)
    for _ in range(3):
        await house.take(large)
    with pytest.raises(ImageQuota):
        await house.take(large)
    await house.images.take(in_pieces(large), "image/png", "bob")
    await house.is_clean()


async def test_a_client_that_goes_away_leaves_nothing(house: House) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield png()[:20]
        yield bytes(70_000)
        raise ConnectionError

    for _ in range(4):  # none of them counts as running for ever
        with pytest.raises(ConnectionError):
            await house.images.take(broken(), "image/png", "ann")
    await house.is_clean()


async def test_a_cancelled_upload_leaves_nothing(house: House) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield png()[:20] + bytes(70_000)
        await asyncio.Event().wait()

    task = asyncio.create_task(house.images.take(slow(), "image/png", "ann"))
    await eventually(lambda: list(house.arriving.iterdir()) != [], seconds=5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await house.is_clean()
    await house.take(png())


class CountedPace(Pace):
    """Lets everybody wait for a moment, and counts for how many bytes it is asked."""

    asked = 0

    @override
    def wait_s(self, size: int, now_s: float) -> float:
        self.asked += size
        return 0.1


@pytest.mark.parametrize(
    ("file", "paced"), [(png(), FILE_BYTES_MIN), (png() + bytes(50_000), len(png()) + 50_000)], ids=["small", "large"]
)
async def test_all_of_an_image_is_paced_also_of_a_small_one(tmp_path: Path, file: bytes, paced: int) -> None:
    pace = CountedPace()
    house = House(tmp_path, pace=pace)
    began_s = time.monotonic()
    await house.take(file)
    assert time.monotonic() - began_s > 0.08
    assert pace.asked == paced
    house.images.close()


@pytest.mark.parametrize("trickle", [False, True])
async def test_places_are_not_held_by_those_who_send_nothing_or_next_to_nothing(tmp_path: Path, trickle: bool) -> None:
    house = House(tmp_path, slow_s=0.3)

    async def idle() -> AsyncIterator[bytes]:
        yield png()[:20]
        while trickle:
            await asyncio.sleep(0.02)
            yield b"x"
        await asyncio.Event().wait()

    holding = [
        asyncio.create_task(house.images.take(idle(), "image/png", f"u{number}")) for number in range(AT_ONCE_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await house.take(png())
    done, _ = await asyncio.wait(holding, timeout=5)
    assert [type(task.exception()) for task in done] == [UploadTooSlow] * AT_ONCE_MAX
    await house.take(png())
    await house.is_clean()
    house.images.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    arriving = _Arriving(tmp_path)
    (tmp_path / arriving.kept_path.with_suffix(".sent").name).symlink_to("/dev/full")
    arriving.kept_path.touch()
    arriving.write(b"x")  # It is written when the file is closed.
    with pytest.raises(OSError, match="No space left"):
        arriving.discard()
    assert list(tmp_path.iterdir()) == []


async def test_one_file_is_examined_at_a_time(house: House) -> None:
    """Each takes turns with the loop that decides bids."""
    large = jpeg(more=segment(0xFE, b"") * 19_000)
    uploads = [
        asyncio.create_task(house.images.take(in_pieces(large, 90_000), "image/jpeg", f"u{number}"))
        for number in range(AT_ONCE_MAX)
    ]
    seen = []
    while not all(task.done() for task in uploads):
        seen.append(sum(map(is_examining, sys._current_frames().values())))
        await asyncio.sleep(0.001)
    await asyncio.gather(*uploads)
    assert max(seen) == 1


def is_examining(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is jpeg_reader.examine.__code__:
            return True
        frame = frame.f_back
    return False


async def test_of_images_of_which_one_is_missing_none_is_kept(house: House) -> None:
    there = await house.take(png())
    with pytest.raises(TermsInvalid):
        await house.images.keep([there, f"/images/{'0' * 64}.png"])
    assert not (house.folder / "kept").exists()


async def test_an_item_cannot_have_what_is_not_there(house: House) -> None:
    there = await house.take(png())
    absent = f"/images/{'0' * 64}.png"
    for look in (house.images.keep, house.images.require):
        with pytest.raises(TermsInvalid, match="upload it") as refused:
            await look([there, absent])
        assert refused.value.field == "image_urls"
        await look([there])


async def test_where_nothing_is_kept() -> None:
    images = Images(None, None, quota=Quota(each_bytes_max=1, all_bytes_max=1), bytes_max=1)
    with pytest.raises(ImagesOff, match="IMAGES_DIR"):
        await images.take(in_pieces(png()), "image/png", "ann")
    with pytest.raises(TermsInvalid, match="IMAGES_DIR"):
        await images.keep([f"/images/{'0' * 64}.png"])
    await images.keep(["https://elsewhere.example/a.jpg"])
    assert await images.open("x") is None
    images.close()


async def test_so_many_are_read_at_a_time(house: House) -> None:
    name = (await house.take(png())).removeprefix("/images/")
    assert await house.images.open("0" * 64 + ".png") is None  # counts no more
    opened = [await house.images.open(name) for _ in range(READERS_MAX)]
    with pytest.raises(Overloaded):
        await house.images.open(name)
    for found in opened:
        assert found is not None
        house.images.close_file(found[0])
    again = await house.images.open(name)
    assert again is not None
    house.images.close_file(again[0])


async def test_a_store_that_fails_is_told_and_tried_again(house: House) -> None:
    (house.folder / "waiting").write_text("a file where a folder should be")
    with pytest.raises(StoreAway):
        await house.take(png())
    await house.is_clean()
    (house.folder / "waiting").unlink()
    await house.take(png())


async def test_it_sweeps_what_nobody_used_and_what_a_dead_gateway_left(house: House) -> None:
    name = (await house.take(png())).removeprefix("/images/")
    left = house.arriving / "left.sent"
    left.write_bytes(b"x")
    (waiting,) = (house.folder / "waiting").rglob(name)
    for path in (waiting, left):
        os.utime(path, (0, 0))
    task = asyncio.create_task(house.images.run())
    await eventually(lambda: not waiting.exists() and not left.exists(), seconds=5)
    task.cancel()


class FullStore(FolderStore):
    """Each of its first sweeps removes as many as one may."""

    sweeps = 0

    @override
    def sweep(self, now_s: float) -> Swept:
        self.sweeps += 1
        return Swept(REMOVED_MAX if self.sweeps < 3 else 0)


async def test_a_sweep_that_did_not_come_to_an_end_goes_on_soon(tmp_path: Path) -> None:
    store = FullStore(tmp_path, bytes_max=10**7, free_bytes_min=0)
    images = Images(store, tmp_path, quota=Quota(each_bytes_max=1, all_bytes_max=1), bytes_max=1)
    task = asyncio.create_task(images.run())
    await eventually(lambda: store.sweeps == 3, seconds=8)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    images.close()


async def test_those_who_want_one_id_take_turns(house: House) -> None:
    inside = 0

    async def turn() -> None:
        nonlocal inside
        async with house.images.turn_of("vase"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(turn() for _ in range(5)))


class Stuck(FolderStore):
    """A store that takes nothing in before the test lets it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, bytes_max=10**7, free_bytes_min=0)
        self.let = Event()
        self.waiting = 0

    @override
    def put(self, path: Path, name: str) -> None:
        self.waiting += 1
        assert self.let.wait(60)
        super().put(path, name)


async def test_uploads_do_not_keep_images_from_being_read(tmp_path: Path) -> None:
    house = House(tmp_path)
    name = (await house.take(png())).removeprefix(PREFIX)
    store = Stuck(tmp_path)
    images = Images(store, house.arriving, quota=Quota(each_bytes_max=10**6, all_bytes_max=10**7), bytes_max=BYTES_MAX)
    uploads = [
        asyncio.create_task(images.take(in_pieces(png(3 + number)), "image/png", f"uploader-{number}"))
        for number in range(AT_ONCE_MAX)
    ]
    try:
        await eventually(lambda: store.waiting + images._threads._work_queue.qsize() == AT_ONCE_MAX, seconds=30)
        async with asyncio.timeout(30):
            opened = await images.open(name)
            assert opened is not None
            assert await images.read(opened[0]) != b""
            images.close_file(opened[0])
    finally:
        store.let.set()
        await asyncio.gather(*uploads)
        images.close()
        house.images.close()


class Evicting(FolderStore):
    """Removes what was found once, before it is opened."""

    copies = 1

    @override
    def find(self, name: str) -> Path | None:
        path = super().find(name)
        if path is not None and self.copies:
            self.copies -= 1
            return path.with_name("evicted")
        return path


async def test_a_copy_that_is_evicted_before_it_is_opened_is_fetched_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    name = (await house.take(png())).removeprefix(PREFIX)
    store = Evicting(tmp_path, bytes_max=10**7, free_bytes_min=0)
    images = Images(store, house.arriving, quota=Quota(each_bytes_max=10**6, all_bytes_max=10**7), bytes_max=BYTES_MAX)
    opened = await images.open(name)
    assert opened is not None
    images.close_file(opened[0])
    images.close()
    house.images.close()
