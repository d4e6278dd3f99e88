"""The monthly estimate, and that the README shows the very same."""

from __future__ import annotations

from typing import Any

import pytest

from infrastructure.deploy_check import costs as aws_costs
from infrastructure.deploy_check import hcl
from infrastructure.deploy_check.local import TERRAFORM_DIR, configured

PRICES = aws_costs.load_prices()
REFERENCE_USD = (164, 231)


def defaults(environment: str) -> dict[str, Any]:
    variables = hcl.read_variables(TERRAFORM_DIR / "envs" / environment)
    return {name: body.attributes.get("default") for name, body in variables.items()}


def usd(lines: list[aws_costs.Line], what: str) -> float:
    return sum(line.usd for line in lines if line.what.startswith(what))


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_readme_shows_this_estimate(environment: str) -> None:
    readme = (TERRAFORM_DIR / "README.md").read_text()
    assert aws_costs.as_table(aws_costs.estimate(environment, defaults(environment), PRICES)) in readme


@pytest.mark.parametrize("environment", ["dev", "prod"])
@pytest.mark.parametrize("viewers", [0, 100])
def test_the_readme_shows_what_a_million_bids_add(environment: str, viewers: int) -> None:
    readme = (TERRAFORM_DIR / "README.md").read_text()
    added = aws_costs.total(aws_costs.per_million_bids(environment, PRICES, viewers=viewers))
    fixed = aws_costs.total(aws_costs.estimate(environment, defaults(environment), PRICES))
    cells = [f"{fixed / millions + added:,.2f}" for millions in (1, 10, 100)]
    assert f"| {environment}, {viewers} viewers | {added:,.2f} | {' | '.join(cells)} |" in readme


def test_dev_costs_less_than_the_reference_system() -> None:
    assert aws_costs.total(aws_costs.estimate("dev", defaults("dev"), PRICES)) < REFERENCE_USD[0]


def test_a_task_is_priced_by_its_size() -> None:
    (line,) = [line for line in aws_costs.estimate("dev", defaults("dev"), PRICES) if line.what == "gateway tasks"]
    assert line.usd == pytest.approx((0.25 * 0.03238 + 0.5 * 0.00356) * 730)
    assert "0.25 vCPU" in line.sum


def test_the_budgets_cover_the_estimates() -> None:
    for environment in ("dev", "prod"):
        values = defaults(environment)
        assert values["budget_usd"] > aws_costs.total(aws_costs.estimate(environment, values, PRICES))


def test_choices_have_their_price() -> None:
    values = defaults("prod")
    before = aws_costs.estimate("prod", values, PRICES)
    values |= {
        "redis_engine": "memorydb",
        "redis_node_type": "db.r7g.large",
        "enable_exec": True,
        "nats_storage_gib": 40,
    }
    values |= {"cache_node_enabled": True, "container_insights": "disabled", "cpu_architecture": "X86_64"}
    after = aws_costs.estimate("prod", values, PRICES)
    assert usd(after, "MemoryDB") == pytest.approx(PRICES["memorydb_node_hour"]["db.r7g.large"] * 730)
    assert usd(after, "interface endpoints") - usd(before, "interface endpoints") == pytest.approx(2 * 7.3)
    assert usd(after, "NATS disk") == pytest.approx(3 * 20 * 0.000111 * 730)
    assert usd(after, "cache nodes") > 0
    assert usd(before, "Container Insights") > usd(after, "Container Insights") == 0
    assert usd(after, "gateway") > usd(before, "gateway")


def test_a_size_without_a_price_is_named_and_not_guessed() -> None:
    values = defaults("dev") | {"redis_node_type": "cache.x9.huge"}
    (line,) = [line for line in aws_costs.estimate("dev", values, PRICES) if "ElastiCache" in line.what]
    assert "not in prices.json" in line.what
    assert line.usd == 0


def test_what_is_counted_by_hand_is_what_the_configuration_has() -> None:
    """prices.json counts secrets, endpoints and rules; here they are read from the configuration."""
    services = (TERRAFORM_DIR / "envs" / "main.tf").read_text()
    line = next(line for line in services.splitlines() if "endpoint_services = " in line)
    assert line.split("[", 1)[1].split("]", 1)[0].count('"') // 2 == PRICES["endpoint_services"]
    firewall = (TERRAFORM_DIR / "modules" / "alb" / "firewall.tf").read_text()
    order = next(line for line in firewall.splitlines() if "firewall_order = " in line)
    assert order.count('"') // 2 == PRICES["rules_of_the_firewall"]
    # And the one that RDS makes.
    assert configured(TERRAFORM_DIR / "envs" / "dev")["aws_secretsmanager_secret"] + 1 == PRICES["secrets"]


def test_alarms_are_counted_as_they_are_made() -> None:
    alarms = (TERRAFORM_DIR / "modules" / "observability" / "alarms.tf").read_text()
    own = alarms.split("own_alarms = {", 1)[1].split("\n  }", 1)[0].count("service = ")
    of_aws = alarms.split("aws_alarms = merge(\n    {", 1)[1].split("\n    },", 1)[0].count("namespace = ")
    values = defaults("dev")
    (line,) = [line for line in aws_costs.estimate("dev", values, PRICES) if line.what == "alarms"]
    assert line.usd / PRICES["alarm_month"] == pytest.approx(own + of_aws + 2 + 3 + values["nats_servers"])


def test_the_alarms_look_at_metrics_that_the_services_report() -> None:
    """The names are in three places: where they are reported, where they are watched, and where they are priced."""
    root = TERRAFORM_DIR.parents[1]
    sources = {
        "gateway": root / "api_gateway" / "main.py",
        "broadcaster": root / "broadcast_service" / "main.py",
        "archiver": root / "archival_worker" / "main.py",
    }
    text = (TERRAFORM_DIR / "envs" / "services.tf").read_text().split("own_metrics = {", 1)[1].split("\n  }", 1)[0]
    watched = hcl.parse(text).attributes
    owners = {"outbox": "gateway", "shards_lost": "gateway", "items_lost": "gateway"}
    owners |= {"consumer_lag": "archiver", "dead_letters": "archiver"}
    for name, owner in (owners | {"connections": "broadcaster"}).items():
        assert f'"{watched[name]}"' in sources[owner].read_text(), name
    for owner, service in watched["services"].items():
        assert f'presence("{service}"' in " ".join(sources[owner].read_text().split()).replace("( ", "("), owner
