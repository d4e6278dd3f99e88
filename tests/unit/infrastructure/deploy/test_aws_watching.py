"""What AWS shows and scrapes, and what takes a deployment back, compared with what there is to show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from infrastructure.deploy.alarms import ROLLBACK_ALARMS
from infrastructure.deploy.notes import VALUE_CHARACTERS_MAX
from infrastructure.deploy.release import NEEDED, ORDER
from infrastructure.deploy_check import hcl
from infrastructure.deploy_check.costs import load_prices
from infrastructure.deploy_check.local import TERRAFORM_DIR
from infrastructure.docker.programs import PROGRAMS

ROOT = TERRAFORM_DIR.parents[1]
PANELS = (TERRAFORM_DIR / "modules/observability/dashboard.tf").read_text()
CACHE_PANELS = (TERRAFORM_DIR / "modules/cache-alarms/panels.tf").read_text()
DEPLOYMENT = (TERRAFORM_DIR / "envs/deployment.tf").read_text()
METRICS = (TERRAFORM_DIR / "envs" / "metrics.tf").read_text()
GRAFANA = ROOT / "infrastructure" / "docker" / "grafana" / "dashboards" / "bidding.json"


def scraped() -> dict[str, list[str]]:
    """By the key of the service, the names that its collector keeps, with a read cache."""
    text = METRICS.split("scraped_metrics = { for key, names in {\n", 1)[1].split("\n    }", 1)[0]
    return hcl.parse(text).attributes


def test_the_dashboard_has_the_panels_of_the_local_one() -> None:
    panels: list[dict[str, Any]] = json.loads(GRAFANA.read_text())["panels"]
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    row = next(index for index, panel in enumerate(panels) if panel["type"] == "row")
    own = re.findall(r'title = "([^"]+)"', PANELS)
    of_cache = re.findall(r'title = "Read cache: ([^"]+)"', CACHE_PANELS)
    assert own[:row] == titles[:row]
    assert of_cache == titles[row:]


def test_what_is_scraped_is_told_by_who_is_asked() -> None:
    """Each name is in the code that writes /metrics of that service."""
    sources = {
        "gateway": [ROOT / "api_gateway/routes/health.py"],
        "broadcaster": [ROOT / "broadcast_service/metrics.py"],
        "archiver": [ROOT / "archival_worker/metrics.py", ROOT / "archival_worker/http.py"],
        "node": [ROOT / "cache_node/metrics.py"],
        "front_end": [ROOT / "cache_node/metrics.py"],
    }
    for key, names in scraped().items():
        text = "".join(path.read_text() for path in sources[key])
        for name in names:
            # Some are put together from a prefix, the name of a field, and `_total`.
            field = re.sub(r"^(cache|archiver|feed)_|_total$", "", name)
            assert name in text or field in text, name


def test_what_is_scraped_is_asked_where_it_is_told() -> None:
    text = METRICS.split("scraped_ports    = {", 1)[1].split("}", 1)[0]
    ports = {name: int(port) for name, port in re.findall(r"(\w+) = (\d+)", text)}
    programs = {"gateway": "api_gateway", "broadcaster": "broadcast_service", "archiver": "archival_worker"}
    programs |= {"node": "cache_node", "front_end": "cache_node"}
    assert ports == {key: PROGRAMS[program].port for key, program in programs.items()}


def test_what_is_scraped_is_shown_and_priced() -> None:
    prices, names = load_prices(), scraped()
    for each in (name for found in names.values() for name in found):
        assert f'"{each}"' in PANELS + CACHE_PANELS, each
    platform = [name for key in ("gateway", "broadcaster", "archiver") for name in names[key]]
    without_cache = [name for name in platform if "cache_" not in name]
    assert len(without_cache) == prices["scraped_metrics"]
    assert sum(map(len, names.values())) - len(without_cache) == prices["scraped_cache_metrics"]


def test_both_look_at_the_same_alarms() -> None:
    """ECS, by Terraform, and `bidding deploy`."""
    text = DEPLOYMENT.split("rollback_alarms = { for service, keys in {\n", 1)[1]
    by_service = hcl.parse(text.split("\n  }", 1)[0]).attributes
    assert by_service.keys() == set(NEEDED)
    assert sorted(name for names in by_service.values() for name in names) == sorted(ROLLBACK_ALARMS)
    alarms = (TERRAFORM_DIR / "modules/observability/alarms.tf").read_text()
    for name in ROLLBACK_ALARMS:
        assert re.search(rf"^ +{name} += {{", alarms, re.MULTILINE), name


def test_the_note_has_room_for_all_alarms_at_once() -> None:
    """A run that goes on would take one that was cut off for a new one, and go back because of it."""
    assert len(" ".join(ROLLBACK_ALARMS)) <= VALUE_CHARACTERS_MAX


def test_every_service_of_terraform_has_its_turn() -> None:
    cache = re.findall(r'name += "(cache-[a-z-]+)"', (TERRAFORM_DIR / "envs" / "cache.tf").read_text())
    nats = re.findall(r'name += "(nats-\d)"', (TERRAFORM_DIR / "modules/nats/main.tf").read_text())
    assert set(ORDER) == {*NEEDED, *nats, *(name for name in cache if name != "cache-front-end-")}


def test_the_workflow_runs_what_the_page_says() -> None:
    workflow = (ROOT / ".github/workflows/deploy.yml").read_text()
    assert len(re.findall(r"bidding deploy --env", workflow)) == 3
    assert re.findall(r"uses: (\S+)", workflow) == re.findall(r"uses: ([\w./-]+@[0-9a-f]{40})", workflow)
    # What somebody typed is never part of a script.
    for script in re.findall(r"run: (.*)", workflow):
        assert "inputs." not in script, script
    assert Path(ROOT / "docs/deploy-aws.md").read_text().count("workflow `deploy`") == 1
