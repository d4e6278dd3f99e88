"""What pays is packed, nothing is lost, and what was not packed here is refused."""

from __future__ import annotations

import gzip
import os

import msgspec
import pytest

from shared.archive_cache import packing
from shared.archive_cache.packing import PACK_FROM_BYTES, is_packed, pack, unpack

PAGE = msgspec.json.encode([{"seq": number, "bid_id": f"b-{number}", "kind": "bid"} for number in range(50)])


def test_a_page_is_packed_as_gzip_and_comes_back() -> None:
    kept = pack(PAGE)
    assert is_packed(kept)
    assert len(kept) < len(PAGE) / 4
    assert gzip.decompress(kept) == PAGE
    assert unpack(kept) == PAGE


def test_what_is_small_or_does_not_shrink_stays_as_it_is() -> None:
    for value in (b"{}", b"[" * (PACK_FROM_BYTES - 1), b'"' + os.urandom(5_000)):
        assert pack(value) is value
        assert unpack(value) is value


def test_what_is_damaged_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = pack(PAGE)
    with pytest.raises(ValueError, match="cut off"):
        unpack(kept[:-9])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(kept[:20] + b"x" * 20 + kept[40:])
    monkeypatch.setattr(packing, "UNPACKED_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="too large"):
        unpack(kept)
