"""Replays against a gateway that follows the domain's rules: order, keys, retries, and prices in the end."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from load_tests.replay import command as module
from load_tests.replay.auctions import RecordedAuction, read_recording
from load_tests.replay.command import Mode, Replayer, ReplayError, Tally
from load_tests.replay.report import ReplayReport
from tests.unit.load_tests.pretend_gateway import PretendGateway
from tests.unit.load_tests.replay.test_auctions import HEADER

ROWS = (
    "100,10,0.1,ada,1,12.50,Palm Pilot,7",
    "100,5,0.2,bob,1,12.50,Palm Pilot,7",
    "100,12,0.3,cid,1,12.50,Palm Pilot,7",
    "100,12.5,0.4,ada,1,12.50,Palm Pilot,7",
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries at once: what is tested is that they happen, not how long they wait."""
    monkeypatch.setattr(module, "_PAUSE_MAX_S", 0.0)


@pytest.fixture
def auction(tmp_path: Path) -> RecordedAuction:
    path = tmp_path / "bids.csv"
    path.write_text("\n".join([HEADER, *ROWS]) + "\n")
    return read_recording(path).auctions[0]


async def test_plain_bids_in_order_refused_where_not_above_the_price(auction: RecordedAuction) -> None:
    gateway = PretendGateway()
    async with gateway.client() as client:
        result = await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)
    assert result.item_id == "ebay-100-t1"
    assert (result.bids, result.accepted, dict(result.refused)) == (4, 3, {"TOO_LOW": 1})
    assert (result.final_price, result.expected_price) == (1250, 1250)
    assert result.ok
    assert [b'"amount":10.00' in gateway.bodies("/bid")[0], b'"amount":12.50' in gateway.bodies("/bid")[3]] == [
        True,
        True,
    ]
    (opening,) = gateway.bodies("/items")
    assert b'"start_price":1.00,"increment":{"kind":"flat","value":0.01}' in opening


async def test_proxy_bids_send_maxima_on_the_ladder(auction: RecordedAuction) -> None:
    gateway = PretendGateway()
    async with gateway.client() as client:
        result = await Replayer(client, Mode.PROXY, "t1", Tally()).replay(auction)
    # 10 leads at 1; 5 lifts it to 5.50; 12 leads at 10.50; 12.50 wins at min(12 + 0.50, 12.50).
    assert (result.final_price, result.expected_price, result.accepted) == (1250, 1250, 4)
    assert result.ok
    assert result.closes_as_recorded
    assert b'"max_amount":10.00' in gateway.bodies("/bid")[0]
    assert b'"increment":{"kind":"ladder"}' in gateway.bodies("/items")[0]


async def test_a_rerun_under_the_same_tag_changes_nothing_and_reports_the_same(auction: RecordedAuction) -> None:
    gateway = PretendGateway()
    async with gateway.client() as client:
        first = await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)
        state = dict(gateway.items)
        second = await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)
    assert second == first
    assert gateway.items == state


async def test_a_lost_answer_is_asked_for_again_under_the_same_key(auction: RecordedAuction) -> None:
    lost: set[bytes] = set()

    def fault(request: httpx.Request) -> str | None:
        if request.content in lost or not request.url.path.endswith(("/bid", "/items")):
            return None
        lost.add(request.content)
        return "lose"

    gateway = PretendGateway(fault)
    async with gateway.client() as client:
        tally = Tally()
        result = await Replayer(client, Mode.PLAIN, "t1", tally).replay(auction)
    assert result.ok
    assert (result.accepted, dict(result.refused)) == (3, {"TOO_LOW": 1})
    assert tally.repeated == 5
    assert gateway.items["ebay-100-t1"][1].bid_count == 3


async def test_an_overload_is_waited_out(auction: RecordedAuction) -> None:
    seen: list[httpx.Request] = []

    def fault(request: httpx.Request) -> str | None:
        seen.append(request)
        return "shed" if len(seen) % 2 else None

    gateway = PretendGateway(fault)
    async with gateway.client() as client:
        result = await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)
    assert result.ok
    assert result.accepted == 3


async def test_bids_that_never_get_through_are_reported_not_hidden(auction: RecordedAuction) -> None:
    gateway = PretendGateway(lambda request: "drop" if b'"bob"' in request.content else None)
    async with gateway.client() as client:
        result = await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)
    assert dict(result.troubles) == {"no answer": 1}
    assert not result.ok
    assert len([body for body in gateway.bodies("/bid") if b'"bob"' in body]) == module._ATTEMPTS_MAX


async def test_a_price_that_the_accepted_bids_do_not_explain_fails(auction: RecordedAuction) -> None:
    gateway = PretendGateway(wrong_price=True)
    async with gateway.client() as client:
        result = await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)
    assert not result.ok


async def test_a_gateway_that_is_away_is_named(auction: RecordedAuction) -> None:
    gateway = PretendGateway(lambda _: "drop")
    async with gateway.client() as client:
        with pytest.raises(ReplayError, match="cannot open item ebay-100-t1: no answer"):
            await Replayer(client, Mode.PLAIN, "t1", Tally()).replay(auction)


def test_the_command_names_a_bad_line_and_leaves_with_status_2(tmp_path: Path) -> None:
    path = tmp_path / "bids.csv"
    path.write_text(f"{HEADER}\n{ROWS[0]}\n{ROWS[1].replace('5,', 'five,', 1)}\n")
    outcome = CliRunner().invoke(module.replay, [str(path), "--gateway-url", "http://127.0.0.1:9"])
    assert outcome.exit_code == module.EXIT_NO_RUN
    assert "line 3, column max_bid" in outcome.output


@pytest.mark.parametrize("tag", ["a b", "x" * 60, "{s00}"])
def test_the_command_refuses_a_tag_that_makes_no_item_id(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "bids.csv"
    path.write_text(f"{HEADER}\n{ROWS[0]}\n")
    outcome = CliRunner().invoke(module.replay, [str(path), "--tag", tag, "--gateway-url", "http://127.0.0.1:9"])
    assert outcome.exit_code == module.EXIT_NO_RUN
    assert "--tag" in outcome.output


def test_the_items_of_the_second_run_must_be_possible_before_the_first(tmp_path: Path) -> None:
    path = tmp_path / "bids.csv"
    path.write_text(f"{HEADER}\n{ROWS[0]}\n")
    tag = "x" * (64 - len("ebay-100-"))
    url = ("--gateway-url", "http://127.0.0.1:9")
    arguments = [str(path), "--tag", tag, "--mode", "proxy", "--reserve-misses", *url]
    outcome = CliRunner().invoke(module.replay, arguments)
    assert outcome.exit_code == module.EXIT_NO_RUN
    assert "--tag" in outcome.output


def test_a_report_has_both_runs_and_one_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (ReplayReport("proxy", tag, "http://a", 1.0, (), 0) for tag in ("t", "t-r"))
    module._write_report(tmp_path / "report.json", first, second)
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["tag"], written["with_reserve"]["tag"]) == ("t", "t-r")
    module._write_report(tmp_path / "report.json" / "below", first)
    assert "The report was not written" in capsys.readouterr().err
