"""What a replay says in the end. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from load_tests.replay.auctions import EXPONENT
from shared.domain.money import format_amount

_FORMAT = 1
_MISSES_SHOWN = 50


@dataclass(frozen=True, slots=True)
class AuctionResult:
    """One auction after its replay; amounts in minor units.

    Args:
        refused: bids refused by the rules, by code.
        troubles: bids that got neither a yes nor a no, by what was answered.
        recorded_price: the closing price of the recording.
        final_price: the item's price in the end.
        expected_price: what the answers say the price must be; None where no bid was accepted.
        highest_maximum: the highest maximum that any bidder entered.
    """

    auction: str
    item_id: str
    bids: int
    accepted: int
    refused: Mapping[str, int]
    troubles: Mapping[str, int]
    opening_bid: int
    recorded_price: int
    final_price: int
    expected_price: int | None
    highest_maximum: int

    @property
    def ok(self) -> bool:
        """Whether every bid got a verdict and the price is what the verdicts say."""
        expected = self.opening_bid if self.expected_price is None else self.expected_price
        return not self.troubles and self.final_price == expected

    @property
    def closes_as_recorded(self) -> bool:
        """Whether the auction ended at the recorded price; only to be expected with proxy bids."""
        return self.final_price == self.recorded_price


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """A finished replay; ``seconds`` of wall time, ``repeated`` requests that were sent again."""

    mode: str
    tag: str
    gateway_url: str
    seconds: float
    results: tuple[AuctionResult, ...]
    repeated: int

    @property
    def ok(self) -> bool:
        """Whether every auction is."""
        return all(result.ok for result in self.results)


def reason_of_miss(result: AuctionResult) -> str:
    """The likeliest reason why the auction did not close at the recorded price, from the data alone."""
    if result.troubles:
        return "some bids got no verdict"
    if result.recorded_price > result.final_price:
        if result.recorded_price == result.highest_maximum:
            return "recorded at the highest maximum: a hidden reserve lifted the price to it"
        if result.recorded_price > result.highest_maximum:
            return "recorded above every maximum: bids are missing in the recording"
        return "recorded higher than the bids explain: a hidden reserve, or a bid that was retracted later"
    if result.recorded_price < result.opening_bid:
        return "recorded below the opening bid"
    return "recorded lower than the bids explain: eBay refused or struck a bid that counts here"


def render(report: ReplayReport) -> str:
    """The report for the terminal."""
    return "\n".join(_lines(report))


def _lines(report: ReplayReport) -> Iterable[str]:
    results = report.results
    bids = sum(result.bids for result in results)
    refused: Counter[str] = Counter()
    troubles: Counter[str] = Counter()
    for result in results:
        refused.update(result.refused)
        troubles.update(result.troubles)
    sound = sum(result.ok for result in results)
    yield ""
    yield f"Replay, mode {report.mode}, tag {report.tag}"
    yield f"  auctions          {len(results):,}"
    yield f"  bids sent         {bids:,} in {report.seconds:.1f} s, {bids / max(report.seconds, 1e-9):,.0f}/s"
    yield f"  accepted          {sum(result.accepted for result in results):,}"
    yield f"  refused           {refused.total():,}{_by_reason(refused)}"
    yield f"  without verdict   {troubles.total():,}{_by_reason(troubles)}"
    yield f"  requests repeated {report.repeated:,}"
    yield f"  price as the accepted bids say: {sound:,} of {len(results):,} auctions"
    for result in results:
        if not result.ok:
            yield f"    FAILED {result.item_id}: {_price_difference(result)}"
    if report.mode == "proxy":
        yield from _recorded_lines(results)


def _recorded_lines(results: tuple[AuctionResult, ...]) -> Iterable[str]:
    misses = [result for result in results if not result.closes_as_recorded]
    hits = len(results) - len(misses)
    yield f"  closed at the recorded price: {hits:,} of {len(results):,} auctions ({hits / len(results):.1%})"
    for result in misses[:_MISSES_SHOWN]:
        yield (
            f"    {result.auction}: {_money(result.final_price)}, recorded {_money(result.recorded_price)}: "
            f"{reason_of_miss(result)}"
        )
    if len(misses) > _MISSES_SHOWN:
        yield f"    … and {len(misses) - _MISSES_SHOWN} more"


def _price_difference(result: AuctionResult) -> str:
    if result.troubles:
        return f"{sum(result.troubles.values())} bids without a verdict{_by_reason(Counter(result.troubles))}"
    expected = "the opening bid" if result.expected_price is None else _money(result.expected_price)
    return f"the price is {_money(result.final_price)}, the accepted bids say {expected}"


def _by_reason(counter: Counter[str]) -> str:
    if not counter:
        return ""
    return "  (" + ", ".join(f"{reason} {count:,}" for reason, count in counter.most_common()) + ")"


def _money(minor: int) -> str:
    return format_amount(minor, EXPONENT)


def as_json(report: ReplayReport) -> dict[str, Any]:
    """The report as plain data; amounts in minor units."""
    return {
        "format": _FORMAT,
        "ok": report.ok,
        "mode": report.mode,
        "tag": report.tag,
        "gateway_url": report.gateway_url,
        "seconds": report.seconds,
        "bids": sum(result.bids for result in report.results),
        "accepted": sum(result.accepted for result in report.results),
        "repeated": report.repeated,
        "closed_as_recorded": sum(result.closes_as_recorded for result in report.results),
        "auctions": [
            {**asdict(result), "ok": result.ok, "closes_as_recorded": result.closes_as_recorded}
            for result in report.results
        ],
    }
