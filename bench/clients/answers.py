"""When an answer of HTTP/1.1 is complete, for the bench's own clients: each has a Content-Length, and no other body."""

from __future__ import annotations

from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


def status_of(data: bytes) -> int | None:
    """The status of the answer that begins here; None while it is not complete."""
    end = data.find(_HEAD_END)
    at = data.find(_LENGTH, 0, end) if end >= 0 else -1
    if at < 0 or len(data) < end + len(_HEAD_END) + int(data[at + len(_LENGTH) : data.find(b"\r\n", at)]):
        return None
    return int(data[9:12])
