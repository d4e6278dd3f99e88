"""Creates lots over HTTP, many with each request, and tries again what did not get through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2 as httpx
import msgspec

from infrastructure.local.importing.lots_file import Lot

PATH: Final = "/api/v1/items:batch"
TOGETHER_MAX: Final = 250
TOGETHER_BYTES_MAX: Final = 512 * 1024
TIMEOUT_S: Final = 30.0
TRIES_MAX: Final = 8
"""Tries in a row in which no lot got through."""
PAUSE_MAX_S: Final = 10.0
_AGAIN: Final = (429, 500, 503)

Sleep = Callable[[float], Awaitable[None]]


class PlatformAway(Exception):
    """The platform does not answer, or does not take lots; ``str(error)`` says why. What was created stays."""


@dataclass(slots=True)
class Tally:
    """What became of the lots."""

    created: int = 0
    there: int = 0
    """Lots whose id was taken: by an earlier run, or by something else."""
    valid: int = 0
    """Lots that a dry run found valid."""
    wrong: list[tuple[int, str]] = field(default_factory=list)
    """The line of each that was refused, and why."""

    @property
    def done(self) -> int:
        return self.created + self.there + self.valid + len(self.wrong)


def groups(lots: Iterable[Lot]) -> Iterator[list[Lot]]:
    """The lots in groups of one request each, bounded in number and in bytes."""
    group: list[Lot] = []
    size = 0
    for lot in lots:
        if group and (len(group) >= TOGETHER_MAX or size + len(lot.body) > TOGETHER_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(lot)
        size += len(lot.body)
    if group:
        yield group


class Sender:
    """Sends groups of lots, one after the other; each lot is counted once in ``tally``."""

    def __init__(self, http: httpx.AsyncClient, *, dry_run: bool, sleep: Sleep = asyncio.sleep) -> None:
        self._http = http
        self._dry_run = dry_run
        self._sleep = sleep
        self.tally = Tally()

    async def send(self, lots: list[Lot]) -> None:
        """Create the lots. If one is created and the answer is lost, the next try finds the lot there.

        Raises:
            PlatformAway: some could not be created, and trying again did not help.
        """
        tries = 0
        while lots:
            left, why = await self._try(lots)
            tries = tries + 1 if len(left) == len(lots) else 0
            if left and tries >= TRIES_MAX:
                raise PlatformAway(why)
            if left:
                await self._sleep(min(PAUSE_MAX_S, 0.25 * 2**tries))
            lots = left

    async def _try(self, lots: list[Lot]) -> tuple[list[Lot], str]:
        """Send the lots once. Returns those that are to be tried again, and why."""
        body = b'{"items":[%b],"dry_run":%b}' % (
            b",".join(lot.body for lot in lots),
            b"true" if self._dry_run else b"false",
        )
        try:
            answer = await self._http.post(PATH, content=body, headers={"content-type": "application/json"})
        except httpx.TransportError as error:
            return lots, f"{type(error).__name__}: {error}"
        if answer.status_code in _AGAIN or answer.status_code in (502, 504):
            return lots, f"status {answer.status_code}: {answer.text[:200]}"
        if answer.status_code != 200:
            raise PlatformAway(f"status {answer.status_code}: {answer.text[:200]}")
        results = msgspec.json.decode(answer.content)["results"]
        left: list[Lot] = []
        why = ""
        for lot, result in zip(lots, results, strict=True):
            if result["status"] in _AGAIN:
                left.append(lot)
                why = str(result["answer"].get("detail", ""))
            else:
                self._count(lot, result["status"], result["answer"])
        return left, why

    def _count(self, lot: Lot, status: int, answer: dict[str, Any]) -> None:
        if status == 201:
            self.tally.created += 1
        elif status == 200:
            self.tally.valid += 1
        elif status == 409:
            self.tally.there += 1
        else:
            self.tally.wrong.append((lot.line, str(answer.get("detail", f"status {status}"))))
