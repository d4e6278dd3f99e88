"""What an uploaded file is found to be, whatever it claims: whole ones, cut ones, huge ones, two things at once."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from api_gateway.images import jpeg as jpeg_reader
from api_gateway.images.errors import ImageBroken, ImageDimensions, ImageTypeWrong
from api_gateway.images.examine import PIXELS_MAX, PIXELS_PER_BYTE_MAX, SIDE_MAX, examine, kind_of, write_kept
from api_gateway.images.picture import PARTS_MAX, Kind, Picture, Source
from tests.unit.api_gateway.images.pictures import (
    HTML,
    PLACE,
    SVG,
    WHOLE,
    chunk,
    exif,
    extended,
    frame,
    jpeg,
    lossless,
    lossy,
    png,
    riff,
    segment,
    webp,
)


def found(file: bytes) -> Picture:
    return examine(io.BytesIO(file))


def kept(file: bytes) -> bytes:
    copy = io.BytesIO()
    write_kept(found(file), io.BytesIO(file), copy)
    return copy.getvalue()


class CountedSource(Source):
    """Counts how often it is read, and how many bytes that were."""

    reads = 0
    bytes_read = 0

    @override
    def read_some(self, offset: int, length_max: int) -> bytes:
        found = super().read_some(offset, length_max)
        self.reads += 1
        self.bytes_read += len(found)
        return found


def filled(fills: int) -> bytes:
    """A comment, with bytes before its marker that fill up."""
    return b"\xff" * fills + segment(0xFE, b"")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"\xff\xd8" + filled(1_024) * 8_000, "without an end"),
        (b"\xff\xd8" + filled(1) * 19_000, "without an end"),
        (jpeg(more=filled(1_000), scan=segment(0xDA, b"\1\1\0\0\x3f\0") * 18_000), "100 scans"),
    ],
)
def test_a_small_file_cannot_make_itself_be_read_for_long(file: bytes, why: str) -> None:
    source = CountedSource(io.BytesIO(file))
    with pytest.raises(ImageBroken, match=why):
        jpeg_reader.examine(source)
    assert source.reads < 10_000
    assert source.bytes_read < 20 * 1024**2


def test_bytes_that_fill_up_are_left_out_and_a_few_do_no_harm() -> None:
    file = jpeg(more=filled(600) + b"\xff" * 3)
    assert kept(file) == jpeg()
    for cut in (3, 100, 500):
        with pytest.raises(ImageBroken, match="cut off"):
            found(file[: file.index(b"\xff" * 9) + cut])


@pytest.mark.parametrize("kind", Kind)
def test_a_whole_image_is_found_and_kept_as_it_is(kind: Kind) -> None:
    file = WHOLE[kind](31, 17)
    picture = found(file)
    assert (picture.kind, picture.width, picture.height) == (kind, 31, 17)
    assert kept(file) == file


@pytest.mark.parametrize("kind", Kind)
def test_whatever_is_missing_at_its_end_it_is_refused(kind: Kind) -> None:
    file = WHOLE[kind](31, 17)
    for length in range(len(file)):
        with pytest.raises((ImageBroken, ImageTypeWrong)):
            found(file[:length])


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\xff\xd8",
        SVG,
        HTML,
        b"GIF89a" + bytes(40),
        b"GIF89a/*" + jpeg(),
        b"BM" + bytes(60),
        b"%PDF-1.7\n" + png(),
        HTML + jpeg(),
        b"\n" + png(),
        b"\xef\xbb\xbf" + SVG,
        riff((b"fmt ", bytes(16)), name=b"WAVE"),
        b"RIFF" + bytes(4),
        b"\0\0\0\x1cftypavif" + bytes(40),
        b"\0\0\0\x1cftypheic" + bytes(40),
    ],
)
def test_what_is_none_of_the_three_types_is_refused(file: bytes) -> None:
    assert kind_of(file) is None
    with pytest.raises(ImageTypeWrong, match="JPEG, PNG or WebP"):
        found(file)


@pytest.mark.parametrize(
    ("file", "dirt"),
    [
        (jpeg(end=HTML), HTML),
        (jpeg(end=b"PK\3\4" + HTML), HTML),
        (jpeg(more=segment(0xFE, HTML)), HTML),
        (jpeg(more=segment(0xE5, HTML)), HTML),
        (jpeg(more=segment(0xE0, b"JFXX\0" + HTML)), HTML),
        (jpeg(more=segment(0xE2, b"MPF\0" + HTML)), HTML),
        (png() + HTML, HTML),
        (png(more=chunk(b"tEXt", b"Comment\0" + HTML)), HTML),
        (png(more=chunk(b"eXIf", PLACE)), PLACE),
        (webp() + HTML, HTML),
        (riff(lossy(16, 9), (b"junk", HTML)), HTML),
        (riff(extended(16, 9, 0x0C), lossy(16, 9), (b"EXIF", PLACE), (b"XMP ", HTML)), PLACE),
    ],
)
def test_of_a_file_that_is_two_things_only_the_image_is_kept(file: bytes, dirt: bytes) -> None:
    assert dirt in file
    clean = kept(file)
    assert dirt not in clean
    assert found(clean).kind is found(file).kind
    assert kept(clean) == clean


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_how_the_camera_was_held_stays_and_where_it_was_goes(orientation: int, order: str) -> None:
    clean = kept(jpeg(more=segment(0xE1, exif(orientation, order))))
    assert PLACE not in clean
    if 2 <= orientation <= 8:
        assert struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) in clean
        assert kept(clean) == clean
    else:
        assert clean == jpeg()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Exif",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"http://ns.adobe.com/xap/1.0/\0" + PLACE,
    ],
)
def test_damaged_data_about_a_photograph_does_no_harm(body: bytes) -> None:
    assert kept(jpeg(more=segment(0xE1, body))) == jpeg()


def test_what_says_how_colours_are_meant_stays() -> None:
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1colours")
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
    for file in (
        jpeg(more=profile + adobe),
        png(more=chunk(b"gAMA", bytes(4)) + chunk(b"iCCP", b"colours")),
        riff(extended(16, 9, 0x20), (b"ICCP", b"colours"), lossy(16, 9)),
        riff(extended(16, 9, 0x10), (b"ALPH", b"alpha"), lossy(16, 9)),
        riff(lossless(16, 9)),
    ):
        assert kept(file) == file


def test_a_progressive_jpeg_with_several_scans_is_one() -> None:
    scan = b"\x01\x02" + segment(0xC4, b"\0" + bytes(16)) + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x03\xff\xff"
    assert kept(jpeg(scan=scan)) == jpeg(scan=scan)


def test_the_end_of_a_scan_is_found_wherever_a_piece_of_it_ends() -> None:
    for length in range(64 * 1024 - 660, 64 * 1024 - 600):
        file = jpeg(scan=b"\x11" * length)
        assert kept(file) == file
    assert kept(jpeg(scan=b"\xff\x00" * 200_000)) == jpeg(scan=b"\xff\x00" * 200_000)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("size", [(SIDE_MAX, PIXELS_MAX // SIDE_MAX + 1), (SIDE_MAX - 1, SIDE_MAX - 1), (0, 5)])
def test_too_many_pixels_or_none_are_refused_without_decoding_them(kind: Kind, size: tuple[int, int]) -> None:
    # That of the PNG has a few bytes, and would take a gigabyte.
    file = png(*size, rows=0) if kind is Kind.PNG else WHOLE[kind](*size)
    with pytest.raises(ImageDimensions, match=f"{size[0]} by {size[1]} pixels"):
        found(file)


@pytest.mark.parametrize("kind", Kind)
def test_a_small_file_is_no_large_picture(kind: Kind) -> None:
    """Six kilobytes and 25 million pixels of one colour would take each viewer 100 MB."""
    file = png(4_000, 4_000, rows=0) if kind is Kind.PNG else WHOLE[kind](4_000, 4_000)
    with pytest.raises(ImageDimensions, match="bytes"):
        found(file)
    assert found(jpeg(4_000, 4_000, scan=b"\x11" * (16_000_000 // PIXELS_PER_BYTE_MAX))).width == 4_000
    # What is left out of it does not count.
    with pytest.raises(ImageDimensions):
        found(jpeg(4_000, 4_000, end=b"\x11" * 1_000_000))
    assert found(jpeg(2_000, 2_000)).width == 2_000


def test_what_segments_of_applications_carry_beside_their_own_fields_is_left_out() -> None:
    head = b"JFIF\0\1\1\0\0\1\0\1"
    thumbnail = segment(0xE0, head + b"\2\2" + PLACE[:12])
    adobe = b"Adobe\0\x64\0\0\0\0\1"
    whole = jpeg(more=segment(0xEE, adobe))
    plain = segment(0xE0, head + b"\0\0")
    assert plain in whole
    assert kept(whole.replace(plain, thumbnail)) == whole
    assert kept(jpeg(more=segment(0xEE, adobe + PLACE))) == whole
    # One that is too short for its own fields says nothing.
    assert kept(whole.replace(plain, segment(0xE0, head))) == whole.replace(plain, b"")


@pytest.mark.parametrize(
    "file",
    [
        png(2**31 - 1, 2**31 - 1, rows=0),
        jpeg(65_535, 65_535),
        riff(extended(2**24, 2**24), lossy(16, 9)),
        riff(lossless(SIDE_MAX, SIDE_MAX)),
    ],
)
def test_the_largest_that_a_head_can_tell(file: bytes) -> None:
    with pytest.raises((ImageDimensions, ImageBroken)):
        found(file)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (jpeg().replace(b"\xff\xc0", b"\xff\xc3"), "kind of JPEG"),
        (jpeg().replace(b"\xff\xc0", b"\xff\xc9"), "kind of JPEG"),
        (jpeg(more=segment(0xC0, frame(9_000, 9_000))), "several pictures"),
        (b"\xff\xd8" + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\xff\xd9", "before its dimensions"),
        (b"\xff\xd8\xff\xd9", "no picture"),
        (b"\xff\xd8" + segment(0xC0, frame(3, 3)) + b"\xff\xd9", "no picture"),
        (b"\xff\xd8\xff\xe0\0\1" + jpeg(), "without a length"),
        (b"\xff\xd8\xff\xe0\0\2" + HTML, "between"),
        (b"\xff\xd8\xff\xd8" + jpeg(), "where none can be"),
        (b"\xff\xd8" + b"\xff" * 70_000, "without an end"),
        (b"\xff\xd8" + segment(0xFE, b"") * (PARTS_MAX + 1), "more than"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x"), "begin with its dimensions"),
        (png().replace(struct.pack(">II", 3, 2), struct.pack(">II", 3, 3)), "damaged"),
        (png(more=chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))), "several pictures"),
        (png(more=chunk(b"ABCD", b"x")), "no browser knows"),
        (png(more=chunk(b"tEXt", b"") * PARTS_MAX), "more than"),
        (png()[:33] + chunk(b"IEND"), "no picture"),
        (riff(lossy(16, 9), lossless(16, 9)), "several pictures"),
        (riff(extended(16, 9), lossless(99, 99)), "two different"),
        (riff(extended(16, 9, 2), (b"ANIM", bytes(6)), (b"ANMF", bytes(30))), "moves"),
        (riff(extended(16, 9)), "no picture"),
        (riff(), "no picture"),
        (riff((b"junk", b"x"), lossy(16, 9)), "begin with its dimensions"),
        (riff(lossy(16, 9), extended(16, 9)), "begin with its dimensions"),
        (riff((b"VP8 ", b"\x11\x02\x00\x9d\x01\x2a" + bytes(8))), "damaged"),
        (riff((b"VP8L", b"\x2e" + bytes(8))), "damaged"),
        (riff((b"VP8 ", b"\x10")), "damaged"),
        (riff(*[(b"ICCP", b"")] * 2), "begin with its dimensions"),
        (riff(lossy(16, 9), *[(b"junk", b"")] * PARTS_MAX), "more than"),
    ],
)
def test_what_begins_as_an_image_and_is_none_that_can_be_shown(file: bytes, why: str) -> None:
    with pytest.raises(ImageBroken, match=why):
        found(file)


@given(st.sampled_from(list(Kind)), st.data())
def test_damage_anywhere_is_refused_or_keeps_an_image(kind: Kind, data: st.DataObject) -> None:
    """Nothing but the errors of this platform, however it is damaged; and what is kept is stable."""
    file = bytearray(WHOLE[kind](31, 17))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        clean = kept(bytes(file))
    except (ImageBroken, ImageDimensions, ImageTypeWrong):
        return
    assert kept(clean) == clean
