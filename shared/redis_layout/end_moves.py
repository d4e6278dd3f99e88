"""What an item remembers of the requests that have moved its end, so that a repetition moves it once.

The field `move_requests` of an item's hash has the newest ones, newest first, blanks between them, each as
``<request>:<content>``: hashes, so that all of them have one short length whatever a client sends. The events carry
them too, for the archive: recovery brings them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

MOVE_REQUESTS_KEPT: Final = 16
"""Requests per item. A repetition comes within seconds or minutes; an item's end is seldom moved."""


@dataclass(frozen=True, slots=True)
class LaterEnd:
    """Where an item's end is to be, in microseconds: at ``end_us``, or later ``by_us``.

    ``key``: the Idempotency-Key of the request, if it has one.
    """

    end_us: int | None = None
    by_us: int | None = None
    key: str | None = None


def move_request(by: str, key: str, content: str) -> str:
    """A request of somebody under an Idempotency-Key, and what it asks for."""
    # A user id has no blank.
    request = blake2b(f"{by} {key}".encode(), digest_size=16).hexdigest()
    return f"{request}:{blake2b(content.encode(), digest_size=8).hexdigest()}"
