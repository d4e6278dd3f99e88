"""Alerts, dashboard and documentation use only metrics that exist: they are compared with `/metrics`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml  # type: ignore[import-untyped]

from infrastructure.local.servers.ports import HOST
from infrastructure.local.stack import Stack
from tests.stack import running_stack

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infrastructure" / "docker"

# Only an archival worker that exports has these; this platform does not export.
WITH_EXPORTS = {"archiver_exports_open"}

_NAME = re.compile(r"\b(?:bidding|feed|archiver|cache|process)_[a-z_]+")
_OF_A_HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


@pytest.fixture(scope="module")
def told(platform: Stack) -> dict[str, str]:
    """Every metric of the services, with its type. The read cache has a platform of its own, whose gateway reads
    through a node."""
    urls = platform.urls
    texts = [metrics_of(url) for url in (urls.gateway_url, urls.broadcast_url, urls.archiver_url)]
    with running_stack(services=("api_gateway",), cache_nodes=1) as cached:
        node = cached.processes["cache_node-1"].spec.env["CACHE_PORT"]
        front_end = cached.ports.cache
        texts += [metrics_of(f"http://{HOST}:{port}") for port in (node, front_end)]
        texts.append(metrics_of(cached.urls.gateway_url))
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", "".join(texts), re.MULTILINE)) | dict.fromkeys(
        WITH_EXPORTS, "gauge"
    )


def metrics_of(url: str) -> str:
    return httpx.get(f"{url}/metrics", timeout=30).text


def asked(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in _NAME.findall(expression)}


def of_alerts() -> list[str]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def of_dashboard() -> list[str]:
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "bidding.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("expressions", [of_alerts(), of_dashboard()], ids=["alerts", "dashboard"])
def test_they_ask_for_what_is_told(told: dict[str, str], expressions: list[str]) -> None:
    names = asked(expressions)
    assert len(names) > 8
    histograms = {name for name in names if told.get(_OF_A_HISTOGRAM.sub("", name)) == "histogram"}
    assert names - histograms <= told.keys()


@pytest.mark.parametrize("expressions", [of_alerts(), of_dashboard()], ids=["alerts", "dashboard"])
def test_what_only_grows_is_asked_for_its_growth(told: dict[str, str], expressions: list[str]) -> None:
    for expression in expressions:
        for name in _NAME.findall(expression):
            grows = told.get(name) == "counter" or name.endswith("_bucket")
            assert grows == bool(re.search(rf"(?:rate|increase)\({name}\[", expression)), expression


def test_the_page_for_operators_lists_all_of_them(told: dict[str, str]) -> None:
    section = (ROOT / "docs" / "operations.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert set(_NAME.findall(table)) == told.keys()


def test_each_alert_is_explained() -> None:
    """Each alert is in the table that says what to do, by its name."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alarms\n")[2].partition("\n## ")[0]
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in [rule for group in groups for rule in group["rules"]]:
        assert f"`{rule['alert']}`" in section, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
