"""``bidding replay PATH``: recorded auctions through the HTTP API, as if their bidders were here.

One item per auction; the bids of an auction one after the other in their recorded order, the auctions side by
side. Every bid carries a key made of the run's tag, so a run that was cut off can be repeated under the same
``--tag``: what has been placed is answered again, nothing is placed twice.

``plain`` sends each recorded maximum as the amount, and a bid that is not above the price is refused.
``proxy`` sends it as ``max_amount`` on eBay's ladder of increments, which should end at the recorded closing
price.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import click
import httpx2 as httpx
import msgspec

from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option, http_url, require_no_tokens
from load_tests.concurrency import map_bounded
from load_tests.generator.answers import BidAnswer, Fate, ItemView, read_bid_answer, read_item
from load_tests.replay.auctions import EXPONENT, CsvError, RecordedAuction, RecordedBid, read_recording
from load_tests.replay.report import AuctionResult, ReplayReport, as_json, render
from load_tests.run.report import write_json
from load_tests.targets import running_urls
from shared.domain.money import format_amount
from shared.names import is_item_id

EXIT_NOT_EQUAL = 1
EXIT_NO_RUN = 2
EXIT_INTERRUPTED = 130

_REQUEST_TIMEOUT_S = 10.0
_ATTEMPTS_MAX = 6
_PAUSE_MIN_S = 0.2
_PAUSE_MAX_S = 5.0
_PROGRESS_EVERY_S = 1.0
_NOTES_SHOWN = 10
# The second run of --reserve-misses has items of its own.
_RESERVED_SUFFIX = "-r"
_DEFAULT_GATEWAY: Final = "http://127.0.0.1:8080"


class ReplayError(Exception):
    """The replay cannot go on; the message says why."""


class Mode(StrEnum):
    """How a recorded maximum becomes a bid."""

    PLAIN = "plain"
    PROXY = "proxy"

    @property
    def increment(self) -> str:
        """The item's increment, as JSON."""
        return '{"kind":"flat","value":0.01}' if self is Mode.PLAIN else '{"kind":"ladder"}'

    @property
    def amount_field(self) -> str:
        """The field of a bid that carries the recorded maximum."""
        return "amount" if self is Mode.PLAIN else "max_amount"


@dataclass(slots=True)
class Tally:
    """Counts for the progress, over all auctions so far."""

    auctions: int = 0
    bids: int = 0
    accepted: int = 0
    refused: int = 0
    repeated: int = 0


@dataclass(slots=True)
class _Course:
    """One auction under way. Amounts in minor units."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    highest_amount: int | None = None
    highest_price: int | None = None


class Replayer:
    """Replays auctions against one gateway.

    Args:
        client: with the gateway as its base address.
        tag: part of every item id and bid key of this run, 1 to 20 characters.
        tally: counts for the progress, shared by all replayers of a run.
        reserved: open each item with its recorded closing price as the hidden reserve.
    """

    def __init__(
        self, client: httpx.AsyncClient, mode: Mode, tag: str, tally: Tally, *, reserved: bool = False
    ) -> None:
        self._client = client
        self._mode = mode
        self._tag = tag
        self._tally = tally
        self._reserved = reserved

    async def replay(self, auction: RecordedAuction) -> AuctionResult:
        """Open the item, place every bid in order, look at the price in the end.

        Raises:
            ReplayError: the item cannot be opened or read, or is another one than this auction's.
        """
        item_id = self.item_id(auction)
        await self._open(auction, item_id)
        course = _Course()
        for bid in auction.bids:
            answer = await self._place(auction, item_id, bid)
            self._note(course, bid, answer)
        item = await self._look(item_id)
        self._tally.auctions += 1
        return AuctionResult(
            auction=auction.auction,
            item_id=item_id,
            bids=len(auction.bids),
            accepted=course.accepted,
            refused=dict(course.refused),
            troubles=dict(course.troubles),
            opening_bid=auction.opening_bid,
            recorded_price=auction.closing_price,
            final_price=item.current_bid,
            expected_price=self._expected_price(course),
            highest_maximum=max(bid.max_bid for bid in auction.bids),
        )

    def item_id(self, auction: RecordedAuction) -> str:
        """The id of the item that stands for this auction in this run."""
        return f"ebay-{auction.auction}-{self._tag}"

    def _expected_price(self, course: _Course) -> int | None:
        """Plain: the highest accepted amount. Proxy: the highest price that any answer showed, since a
        maximum is hidden.
        """
        return course.highest_amount if self._mode is Mode.PLAIN else course.highest_price

    async def _open(self, auction: RecordedAuction, item_id: str) -> None:
        start_price = format_amount(auction.opening_bid, EXPONENT)
        name = msgspec.json.encode(auction.name).decode()
        body = (
            f'{{"id":"{item_id}","name":{name},"description":"Recorded auction {auction.auction}, replayed.",'
            f'"currency":"USD","start_price":{start_price},{self._reserve(auction)}'
            f'"increment":{self._mode.increment}}}'
        )
        response = await self._send("POST", "/api/v1/items", body)
        # 409: opened by an earlier run under the same tag, or by an attempt of this one whose answer was
        # lost.
        if response is None or response.status_code not in (201, 409):
            raise ReplayError(f"cannot open item {item_id}: {self._told(response)}")

    def _reserve(self, auction: RecordedAuction) -> str:
        # A recorded price below the opening bid cannot be a reserve.
        if not self._reserved or auction.closing_price < auction.opening_bid:
            return ""
        return f'"reserve_price":{format_amount(auction.closing_price, EXPONENT)},'

    async def _look(self, item_id: str) -> ItemView:
        response = await self._send("GET", f"/api/v1/items/{item_id}", None)
        if response is None or response.status_code != 200:
            raise ReplayError(f"cannot read item {item_id}: {self._told(response)}")
        try:
            return read_item(response.content, EXPONENT)
        except ValueError as error:
            raise ReplayError(f"item {item_id}: {error}") from error

    async def _place(self, auction: RecordedAuction, item_id: str, bid: RecordedBid) -> BidAnswer:
        """Place one bid, under the same key again while the outcome is unknown or the platform overloaded."""
        amount = format_amount(bid.max_bid, EXPONENT)
        body = (
            f'{{"user_id":"{bid.bidder}","{self._mode.amount_field}":{amount},'
            f'"bid_id":"{auction.auction}-{self._tag}-{bid.number}"}}'
        )
        response = await self._send("POST", f"/api/v1/items/{item_id}/bid", body)
        if response is None:
            return read_bid_answer(0, None)
        return read_bid_answer(response.status_code, response.content, EXPONENT)

    async def _send(self, method: str, path: str, body: str | None) -> httpx.Response | None:
        """One request with bounded repetition; safe because items have ids and bids have keys. None without
        any answer.
        """
        response: httpx.Response | None = None
        for attempt in range(_ATTEMPTS_MAX):
            if attempt:
                self._tally.repeated += 1
                await asyncio.sleep(_pause_s(attempt, response))
            try:
                response = await self._client.request(
                    method, path, content=body, headers={"Content-Type": "application/json"}
                )
            except httpx.TransportError:
                response = None
                continue
            if response.status_code not in (409, 429) and response.status_code < 500:
                break
            if response.status_code == 409 and path == "/api/v1/items":
                break
        return response

    def _told(self, response: httpx.Response | None) -> str:
        if response is None:
            return f"no answer from {self._client.base_url}. Is the platform up? `bidding up` starts one"
        return f"HTTP {response.status_code} {response.text[:200]}"

    def _note(self, course: _Course, bid: RecordedBid, answer: BidAnswer) -> None:
        self._tally.bids += 1
        if answer.fate is Fate.ACCEPTED:
            self._tally.accepted += 1
            course.accepted += 1
            course.highest_amount = max(course.highest_amount or 0, bid.max_bid)
            course.highest_price = max(course.highest_price or 0, answer.current_bid or 0)
        elif answer.fate is Fate.REFUSED:
            self._tally.refused += 1
            course.refused[answer.reason] += 1
            course.highest_price = max(course.highest_price or 0, answer.current_bid or 0)
        else:
            course.troubles[answer.complaint or "no answer"] += 1


def _pause_s(attempt: int, response: httpx.Response | None) -> float:
    """What the platform asks for, else doubling; in either case bounded."""
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    pause = float(asked) if asked.isdigit() else _PAUSE_MIN_S * 2**attempt
    return min(pause, _PAUSE_MAX_S)


async def replay_all(
    auctions: Sequence[RecordedAuction],
    gateway_url: str,
    mode: Mode,
    tag: str,
    *,
    concurrency: int,
    reserved: bool = False,
) -> ReplayReport:
    """Replay every auction, ``concurrency`` of them side by side, with a line of progress each second.

    ``reserved``: with each auction's recorded closing price as its hidden reserve.

    Raises:
        ReplayError: an item cannot be opened or read.
    """
    tally = Tally()
    # Each auction that runs has a client and a connection of its own: a shared pool looks through all of its
    # connections for every request, which at 32 of them costs more than the request.
    encryption = httpx.create_ssl_context()
    async with AsyncExitStack() as stack:
        idle: list[Replayer] = []
        for _ in range(min(concurrency, len(auctions))):
            client = httpx.AsyncClient(
                base_url=gateway_url, timeout=_REQUEST_TIMEOUT_S, verify=encryption, trust_env=False
            )
            entered = await stack.enter_async_context(client)
            idle.append(Replayer(entered, mode, tag, tally, reserved=reserved))

        async def replay_one(auction: RecordedAuction) -> AuctionResult:
            replayer = idle.pop()
            try:
                return await replayer.replay(auction)
            finally:
                idle.append(replayer)

        progress = asyncio.create_task(_show_progress(tally, len(auctions)))
        start = time.monotonic()
        try:
            results = await map_bounded(replay_one, auctions, at_once=concurrency)
        finally:
            progress.cancel()
    seconds = time.monotonic() - start
    return ReplayReport(mode.value, tag, gateway_url, seconds, tuple(results), tally.repeated)


async def _show_progress(tally: Tally, auctions: int) -> None:
    before = 0
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        per_second = (tally.bids - before) / _PROGRESS_EVERY_S
        click.echo(
            f"  {tally.auctions:,} of {auctions:,} auctions   {tally.bids:,} bids, {per_second:,.0f}/s   "
            f"accepted {tally.accepted:,}   refused {tally.refused:,}"
        )
        before = tally.bids


@click.command(
    "replay",
    context_settings={"show_default": True},
    epilog=examples("bidding replay data/auctions.csv --mode proxy --reserve-misses"),
)
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False, readable=True))
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), default="plain", help="How to bid maxima.")
@click.option(
    "--gateway-url",
    envvar="GATEWAY_URL",
    show_envvar=True,
    callback=http_url,
    help="The platform; by default the one that is up here.",
)
@click.option("--concurrency", type=click.IntRange(1, 500), default=32, help="Auctions at the same time.")
@click.option("--limit", type=click.IntRange(min=1), help="Replay only this many auctions.")
@click.option(
    "--reserve-misses",
    is_flag=True,
    help="Proxy mode: replay the auctions that miss their recorded price once more, with that price as the reserve.",
)
@click.option("--tag", help="Repeat the run of this tag instead of making a new one.")
@data_dir_option
@click.option("--report", "report_path", type=click.Path(path_type=Path, dir_okay=False), help="File for the report.")
def replay(
    path: Path,
    mode: str,
    gateway_url: str | None,
    concurrency: int,
    limit: int | None,
    reserve_misses: bool,
    tag: str | None,
    data_dir: Path,
    report_path: Path | None,
) -> None:
    """Replay recorded auctions, and compare the prices.

    Feeds the auctions of the CSV file PATH through the HTTP API.

    Exit status: 0 when every price is as the accepted bids say, 1 when one is not, 2 when no replay was
    possible.
    """
    require_no_tokens("Replays")
    chosen = Mode(mode)
    tag = tag or f"{chosen.value}-{time.time_ns() // 1_000_000:x}"
    try:
        recording = read_recording(path)
        auctions = recording.auctions[:limit]
        for note in recording.notes[:_NOTES_SHOWN]:
            click.echo(f"Note: {note}")
        _check_tag(auctions, f"{tag}{_RESERVED_SUFFIX if reserve_misses else ''}")
        gateway = gateway_url or _running_gateway(data_dir)
        bids = sum(len(auction.bids) for auction in auctions)
        click.echo(f"{len(auctions):,} auctions with {bids:,} bids to {gateway}, mode {chosen}, tag {tag}")
        report = asyncio.run(replay_all(auctions, gateway, chosen, tag, concurrency=concurrency))
        click.echo(render(report))
        reports = [report]
        missed = {result.auction for result in report.results if not result.closes_as_recorded}
        if reserve_misses and chosen is Mode.PROXY and missed:
            again = [auction for auction in auctions if auction.auction in missed]
            click.echo(f"\nOnce more, {len(again)} auctions with their recorded price as the reserve:")
            with_reserve = replay_all(
                again, gateway, chosen, f"{tag}{_RESERVED_SUFFIX}", concurrency=concurrency, reserved=True
            )
            reports.append(asyncio.run(with_reserve))
            click.echo(render(reports[-1]))
    except (CsvError, OSError, ReplayError) as error:
        click.echo(f"Error: No replay: {error}", err=True)
        sys.exit(EXIT_NO_RUN)
    except KeyboardInterrupt:
        click.echo(f"Stopped. The same bids go on with --mode {chosen} --tag {tag}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if report_path is not None:
        _write_report(report_path, *reports)
    sys.exit(0 if all(report.ok for report in reports) else EXIT_NOT_EQUAL)


def _write_report(path: Path, report: ReplayReport, with_reserve: ReplayReport | None = None) -> None:
    second = as_json(with_reserve) if with_reserve is not None else None
    try:
        write_json(path, as_json(report) | {"with_reserve": second})
    except OSError as error:
        # The prices were compared nevertheless.
        click.echo(f"Error: The report was not written: {error}", err=True)
    else:
        click.echo(f"Report: {path}")


def _check_tag(auctions: Sequence[RecordedAuction], tag: str) -> None:
    for auction in auctions:
        if not is_item_id(f"ebay-{auction.auction}-{tag}"):
            raise ReplayError(f"--tag {tag!r} makes an item id that is no 1 to 64 of A-Z a-z 0-9 _ -")


def _running_gateway(data_dir: Path) -> str:
    urls: Mapping[str, str] = running_urls(data_dir) or {}
    return urls.get("gateway_url", _DEFAULT_GATEWAY)
