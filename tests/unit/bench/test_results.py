"""The file of a run of the benches, and its page: all results, and nothing that is not measured."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.chart import page
from bench.gateway import Result
from bench.growth import Step
from bench.overload.gateway import PACES, Pace, Run, Setting
from bench.results import BenchRun, now


def run_of(rate: float) -> Result:
    return Result(rate, rate, rate, 0, 0.8, 29.0, 1.0, float("nan"))


def test_each_part_is_in_the_file_as_soon_as_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    run = BenchRun({"rounds": 2}, path)
    run.begin()
    assert json.loads(path.read_bytes())["parts"] == {}
    run.add("gateway", now(), {"bare ASGI echo": [run_of(100.0)]})
    told = json.loads(path.read_bytes())
    assert not told["complete"]
    assert told["parts"]["gateway"]["results"] == {"bare ASGI echo": [asdict(run_of(100.0)) | {"p99_ms": None}]}
    assert told["parts"]["gateway"]["began_at"] <= told["parts"]["gateway"]["ended_at"]
    assert (told["options"], set(told["machine"])) == ({"rounds": 2}, {"system", "processor", "cores", "memory_gb"})
    assert re.fullmatch(r"[0-9a-f]{40}\+?|unknown", told["commit"])
    run.end()
    assert json.loads(path.read_bytes())["complete"]
    assert [each.name for each in tmp_path.iterdir()] == ["bench.json"]


def test_bars_are_medians_of_the_ratios_within_each_round() -> None:
    run = BenchRun({}, None)
    # Rounds of a machine that became four times as slow: within each the gateway has a half, a quarter, and 0.3.
    echo, gateway = (400.0, 200.0, 100.0), (200.0, 50.0, 30.0)
    results = {"bare ASGI echo": [*map(run_of, echo)], "gateway <&>": [*map(run_of, gateway)]}
    run.add("gateway", now(), results)
    told = page(run.told)
    assert "bare ASGI echo: 1.00, gateway &lt;&amp;&gt;: 0.30" in told
    widths = [float(each) for each in re.findall(r'<rect class="bar k0"[^>]* width="([\d.]+)"', told)]
    assert widths[1] / widths[0] == pytest.approx(0.3, abs=0.01)
    assert "did not come to its end" in told
    assert not re.search(r"<script|src=|href=\"http", told)


def test_curves_and_paces_are_drawn_from_what_their_parts_return() -> None:
    run = BenchRun({}, None)
    steps = [Step(1, 9_000.0, 1.0, 5.0, 0), Step(1_000_000, 8_000.0, 1.0, 7.0, 1_232)]
    run.add("growth", now(), (steps, []))
    pace = Pace(160.0, 90.0, 70.0, 0, 1.0, 12.5, 2.0, 10.0)
    run.add("overload", now(), {Setting(1, 1_000, 150): [Run(100.0, [pace] * len(PACES), 0.1)]})
    run.add("cache-hits", now(), {(0.9, 0.1): {"ours": 0.5}})
    run.end()
    told = page(run.told)
    assert "by items in Redis: 1: 9,000.0, 1,000,000: 8,000.0" in told
    assert "1 items, 1000 ms, 150 ms if it stands, twice the peak, then: 0.90" in told
    assert "cache-hits" not in told, "it has nothing to draw"
    assert "did not come to its end" not in told


def test_a_file_that_cannot_be_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    for option in ("--json", "--chart"):
        ran = CliRunner().invoke(main, ["--part", "cache-hits", option, str(tmp_path / "away" / "file")])
        assert (ran.exit_code, "make it first" in ran.output) == (1, True), ran.output
