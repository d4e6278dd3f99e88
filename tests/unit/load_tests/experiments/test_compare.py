"""The report: each sentence is what the files say, and the page needs nothing but itself."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from load_tests.experiments.common.gateway_clock import GatewayTime
from load_tests.experiments.common.results import (
    FORMAT,
    LadderStep,
    Limit,
    Machine,
    ProofSummary,
    ResultError,
    read_result,
    write_result,
)
from load_tests.experiments.compare.build import build, named
from load_tests.experiments.compare.claims import Judged, judge, read_claims
from load_tests.experiments.compare.markdown import markdown
from load_tests.experiments.compare.page import html
from load_tests.generator.ledger import Latency
from tests.unit.load_tests.experiments.world import environment, fan, phases, result, step


def judged(*results: object) -> dict[str, Judged]:
    return {each.claim.id: each for each in judge(read_claims(), results)}  # type: ignore[arg-type]


def ladder(*steps: LadderStep) -> object:
    return result("contention", ladder=list(steps))


def test_a_claim_that_no_file_measures_says_what_is_needed() -> None:
    found = judged()
    assert {each.status for each in found.values()} == {"untestable"}
    assert all(each.measured is None and each.note for each in found.values())
    assert "10,000 users" in found["no-failures"].note


@pytest.mark.parametrize(
    ("rate", "status"), [(4_330, "reproduced"), (5_412, "reproduced"), (5_413, "refuted"), (3_247, "refuted")]
)
def test_a_rate_is_held_against_the_corrected_figure_within_a_quarter(rate: float, status: str) -> None:
    twin = result("network", ladder=[step(100, 1_208), step(500, rate)])
    found = judged(twin)
    assert found["aws-knee"].measured == rate
    assert found["aws-knee"].status == status
    assert found["aws-100"].status == "reproduced"


def test_failures_and_losses_count_over_the_whole_ladder() -> None:
    good = judged(ladder(step(100), step(10_000)))
    assert (good["no-failures"].status, good["integrity"].status) == ("reproduced", "reproduced")
    bad = judged(ladder(step(100, failures=3, proof=ProofSummary(ok=False, lost_updates=2)), step(10_000)))
    assert (bad["no-failures"].measured, bad["integrity"].measured) == (3.0, 2.0)
    assert (bad["no-failures"].status, bad["integrity"].status) == ("refuted", "refuted")
    assert judged(ladder(step(100), step(10_000, proof=ProofSummary(ok=None))))["integrity"].status == "untestable"


def test_a_proof_that_fails_is_a_loss_even_where_nothing_is_missing() -> None:
    assert judged(ladder(step(10_000, proof=ProofSummary(ok=False))))["integrity"].status == "refuted"


def test_strategies_are_compared_by_accepted_bids_of_the_same_users() -> None:
    slow = ladder(step(100, strategy="optimistic", accepted_per_s=50.0), step(500, strategy="optimistic"))
    fast = ladder(step(100, accepted_per_s=100.0))
    found = judged(slow, fast)["lua-wins"]
    assert (found.measured, found.status) == (2.0, "reproduced")
    document = build({"ours": fast, "theirs": slow})  # type: ignore[dict-item]
    text = markdown(document)
    assert "100 users: lua accepted 100 bids/s, WATCH/MULTI 50: 2.0 times as many" in text
    assert "500 users: lua" not in text


def test_the_sentences_follow_the_figures() -> None:
    runs = {
        "one": result("contention", ladder=[step(100, 2_000), step(500, 1_000, limit=Limit("machine", "busy"))]),
        "crowd": result("fanout", fanout=[fan(10, 499)]),
        "kill": result("resilience", phases=phases()),
        "here": environment(5.0),
        "there": environment(9.0, complete=False, cut_off="stopped by a signal"),
    }
    text = markdown(build(runs))
    assert "one: the best rate was 2,000 bids/s with 100 users" in text
    assert "one: with 500 users it was 1,000 bids/s, 0.50 of the best" in text
    assert "with 500 users the load or the shared machine was at its limit" in text
    assert "crowd: 499 of 500 bids were told to viewers (99.80%)" in text
    assert "without broadcast, bids went on, viewers were shown nothing; all worked again 12.5 s after the kill" in text
    assert "1 of 1 runs in which a part was killed ended with nothing lost or doubled" in text
    assert "deployment time: here 5.00 s, there 9.00 s (medians)" in text
    assert "Cut off, so only a part of the run: there" in text
    lost = markdown(build({"kill": result("resilience", phases=phases(ok=False))}))
    assert "0 of 1 runs in which a part was killed ended with nothing lost" in lost
    assert "NOT PROVED" in lost


def test_a_slow_load_is_told_from_a_slow_gateway() -> None:
    crowd = step(10_000, latency=Latency(300, 9_000, 20_000, 25_000), gateway_time=GatewayTime(50, 100, 250))
    text = markdown(build({"one": result("contention", ladder=[step(100), crowd])}))
    assert "with 10,000 users 99 % of the bids took at most 250 ms in the gateway; the rest of the load's p99" in text
    slow = step(10_000, latency=Latency(300, 9_000, 20_000, 25_000), gateway_time=GatewayTime(50, 10_000, None))
    text = markdown(build({"one": result("contention", ladder=[step(100), slow])}))
    assert "in the gateway; the rest" not in text
    assert "over 10,000" in text


def test_the_page_is_self_contained_and_escapes_what_it_shows() -> None:
    evil = result("contention", place="<script>alert(1)</script>", ladder=[step(100), step(500)])
    page = html(build({"a & b": evil}))
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "url(" not in page
    assert "a &amp; b" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert page.count("<svg") == 4


def test_the_last_label_of_a_chart_is_not_cut_off() -> None:
    page = html(build({"one": result("contention", ladder=[step(100), step(1_000), step(10_000)])}))
    assert re.search(r'text-anchor="end">10,000</text>', page)
    assert re.search(r'text-anchor="middle">1,000</text>', page)


def test_results_of_the_same_name_are_told_apart_by_their_folders() -> None:
    one = result("contention")
    paths = [Path("a/x.json"), Path("b/x.json"), Path("b/y.json")]
    assert list(named(paths, [one, one, one])) == ["a/x", "b/x", "y"]


def test_a_result_survives_its_file_and_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    timed = [step(100), step(500, gateway_time=GatewayTime(10, 100, None))]
    written = result("contention", ladder=timed, notes=["a note"])
    write_result(path, written)
    assert read_result(path) == written
    data = msgspec.json.decode(path.read_bytes())
    assert data["ladder"][0]["bids_per_s"] == 1_000
    path.write_bytes(msgspec.json.encode(data | {"format": FORMAT + 1}))
    with pytest.raises(ResultError, match=f"has the format {FORMAT + 1}"):
        read_result(path)


def test_what_nobody_looked_at_is_not_called_kept() -> None:
    unseen = step(500, failures=2, proof=ProofSummary(ok=None, statements=["the stores were not named"]))
    text = markdown(build({"far": result("contention", ladder=[unseen])}))
    assert "In 1 steps 2 requests failed. Whether accepted bids were lost is not known" in text
    assert "0 accepted bids were lost" not in text
    both = markdown(build({"far": result("contention", ladder=[step(100), unseen])}))
    assert "1 of them could be proved: there 0 accepted bids were lost" in both


@pytest.mark.parametrize("order", [1, -1])
def test_strategies_are_compared_on_one_platform_in_whatever_order_files_come(order: int) -> None:
    ladders = {
        "compose": result("contention", backend="compose", ladder=[step(100, accepted_per_s=7.0)]),
        "many": result("contention", ladder=[step(100, accepted_per_s=9_000.0, items=50)]),
        "plain": result("contention", ladder=[step(100, accepted_per_s=5_000.0, made_by="plain")]),
        "old": result("contention", started_at="2029-01-01", ladder=[step(100, accepted_per_s=1.0)]),
        "ours": result("contention", ladder=[step(100, accepted_per_s=100.0)]),
        "theirs": result("contention", ladder=[step(100, strategy="optimistic", accepted_per_s=50.0)]),
    }
    runs = dict(list(ladders.items())[::order])
    assert "lua accepted 100 bids/s, WATCH/MULTI 50: 2.0 times as many" in markdown(build(runs))
    assert judged(*runs.values())["lua-wins"].measured == 2.0


@pytest.mark.parametrize("order", [1, -1])
def test_a_cloud_is_measured_there_or_on_a_twin_that_is_like_one(order: int) -> None:
    none = result("network", settings={"cpu": 0, "delays_s": {"client": 0.0}}, ladder=[step(100, 9_000)])
    old = result("network", started_at="2029-01-01", ladder=[step(100, 1_000)])
    twin = result("network", settings={"cpu": 0.5, "delays_s": {"client": 0.015}}, ladder=[step(100, 1_208)])
    aws = result("contention", backend="aws", ladder=[step(100, 2_000)])
    assert judged(*[none, old, twin][::order])["aws-100"].measured == 1_208
    assert judged(*[none, twin, aws][::order])["aws-100"].measured == 2_000
    assert judged(none)["aws-100"].status == "untestable"


def test_what_was_cut_off_is_not_called_impossible() -> None:
    cut = environment(5.0, complete=False, cut_off="stopped by a signal")
    cut.tests[0].values.clear()
    text = markdown(build({"cut": cut, "here": environment(6.0)}))
    assert "Not cut for deployment time" not in text
    assert "Not cut for cost: it cannot do that" in text
    assert "| not measured |" in text


def test_no_text_of_a_file_is_a_link_an_image_or_a_cell_of_its_own() -> None:
    evil = result("contention", place="![x](http://evil/x.png) a\\|b `c` &lt;i>\r\n# d", ladder=[step(100)])
    line = next(line for line in markdown(build({"one": evil})).splitlines() if "evil" in line)
    assert "!\\[x\\](http://evil/x.png) a\\\\\\|b \\`c\\` &amp;lt;i> # d" in line


def test_versions_and_machines_that_differ_are_told() -> None:
    other = result("contention", commit="fedcba9876543210", machine=Machine("Linux", "another", 64, 256.0))
    text = markdown(build({"one": result("contention"), "two": other}))
    assert "Of 2 versions: 0123456789, fedcba9876." in text
    assert "Of 2 machines: their figures do not compare." in text
    assert "versions" not in markdown(build({"one": result("contention")}))


def test_files_of_one_folder_are_told_apart_by_their_endings() -> None:
    one = result("contention")
    assert list(named([Path("a/x.json"), Path("a/x.old")], [one, one])) == ["a/x.json", "a/x.old"]


def test_a_strategy_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, result("contention", ladder=[step(100)]))
    data = msgspec.json.decode(path.read_bytes())
    data["ladder"][0]["strategy"] = "luck"
    path.write_bytes(msgspec.json.encode(data))
    with pytest.raises(ResultError, match="luck"):
        read_result(path)
