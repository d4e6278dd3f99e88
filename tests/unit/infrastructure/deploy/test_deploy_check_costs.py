"""The monthly estimate, and that the README shows the very same."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cache_node.archive_check import ArchiveCheck
from cache_node.context import Context
from cache_node.figures import figures, service_name
from infrastructure.deploy_check import costs as aws_costs
from infrastructure.deploy_check import hcl
from infrastructure.deploy_check.local import TERRAFORM_DIR, configured
from shared.archive_cache.reads import CachedReads, groups, never_unsettled
from shared.read_cache.opening import open_read_cache
from shared.read_cache.ring import Node
from shared.read_cache.settings import ReadCacheSettings

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


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_readme_shows_what_the_read_cache_adds(environment: str) -> None:
    values = defaults(environment)
    added = aws_costs.read_cache(values, PRICES)
    assert aws_costs.as_table(added) in (TERRAFORM_DIR / "README.md").read_text()
    without = aws_costs.total(aws_costs.estimate(environment, values, PRICES))
    with_it = aws_costs.total(aws_costs.estimate(environment, values | {"cache_node_enabled": True}, PRICES))
    assert with_it - without == pytest.approx(aws_costs.total(added))


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
    assert usd(after, "NATS disk past") == pytest.approx(3 * 20 * 0.000111 * 730)
    assert usd(after, "cache node tasks") == pytest.approx(3 * (0.5 * 0.04048 + 1 * 0.004445) * 730)
    assert usd(after, "cache front end tasks") > 0 == usd(before, "cache")
    assert usd(before, "Container Insights") > usd(after, "Container Insights") == 0
    assert usd(after, "gateway") > usd(before, "gateway")


def test_a_cluster_of_redis_costs_as_many_nodes_as_it_has() -> None:
    one = defaults("prod")
    three = one | {"redis_shards": 3, "redis_replicas": 2}
    node = PRICES["elasticache_node_hour"][one["redis_node_type"]] * 730
    assert usd(aws_costs.estimate("prod", one, PRICES), "ElastiCache") == pytest.approx(2 * node)
    assert usd(aws_costs.estimate("prod", three, PRICES), "ElastiCache") == pytest.approx(9 * node)


def test_a_size_without_a_price_is_named_and_not_guessed() -> None:
    values = defaults("dev") | {"redis_node_type": "cache.x9.huge"}
    (line,) = [line for line in aws_costs.estimate("dev", values, PRICES) if "ElastiCache" in line.what]
    assert "not in prices.json" in line.what
    assert line.usd == 0


def test_the_readme_shows_what_viewers_add() -> None:
    """80,000 viewers are 26.7 capacity units of the load balancer, whatever they watch: about 156 USD."""
    readme = (TERRAFORM_DIR / "README.md").read_text()
    values = defaults("prod")
    assert aws_costs.as_table(aws_costs.viewers_added(values, PRICES, 80_000)) in readme
    assert usd(aws_costs.viewers_added(values, PRICES, 80_000), "load balancer") == pytest.approx(155.73, abs=0.01)
    assert usd(aws_costs.viewers_added(values, PRICES, 8_000), "more broadcaster") == 0
    # Where their frames weigh more than they themselves, those count.
    assert aws_costs.capacity_units(PRICES, viewers=3_000, frames_gb_per_hour=5.0) == 5.0


def test_more_choices_have_their_price() -> None:
    values = defaults("dev")
    before = aws_costs.estimate("dev", values, PRICES)
    more = {
        "auth_mode": "jwt",
        "proxy_cidrs": ["198.51.100.0/24"],
        "nats_keep_disks": True,
        "collector_image_tag": None,
    }
    after = aws_costs.estimate("dev", values | more, PRICES)
    assert usd(after, "secrets") - usd(before, "secrets") == pytest.approx(PRICES["secret_month"])
    assert usd(after, "firewall") - usd(before, "firewall") == pytest.approx(2 * PRICES["waf_rule_month"])
    assert usd(after, "NATS disks on EFS") == pytest.approx(0.3)
    assert usd(before, "metrics that the collector") > usd(after, "metrics that the collector") == 0


def test_what_is_counted_by_hand_is_what_the_configuration_has() -> None:
    """prices.json counts secrets, endpoints and rules; here they are read from the configuration."""
    services = (TERRAFORM_DIR / "envs" / "main.tf").read_text()
    line = next(line for line in services.splitlines() if "endpoint_services = " in line)
    assert line.split("[", 1)[1].split("]", 1)[0].count('"') // 2 == PRICES["endpoint_services"]
    firewall = (TERRAFORM_DIR / "modules" / "alb" / "firewall.tf").read_text()
    of_all, of_proxies = firewall.split("firewall_order = concat(\n", 1)[1].splitlines()[:2]
    assert of_all.count('"') // 2 == PRICES["rules_of_the_firewall"]
    assert of_proxies.split("?")[1].count('"') // 2 == PRICES["rules_for_proxies"]
    # That of tokens is there only with them, and RDS makes one.
    secrets = configured(TERRAFORM_DIR / "envs" / "dev")["aws_secretsmanager_secret"]
    assert secrets - 2 + 1 == PRICES["secrets"]


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
        "gateway": root / "api_gateway" / "opening" / "figures.py",
        "broadcaster": root / "broadcast_service" / "main.py",
        "archiver": root / "archival_worker" / "main.py",
    }
    text = (TERRAFORM_DIR / "envs" / "metrics.tf").read_text().split("own_metrics = {", 1)[1].split("\n  }", 1)[0]
    watched = hcl.parse(text).attributes
    owners = {
        "gateway": ("outbox", "outbox_all", "decided", "shed", "shards_lost", "items_lost"),
        "archiver": ("consumer_lag", "dead_letters", "commit_time"),
        "broadcaster": ("connections", "frames", "frame_time"),
    }
    assert {name for names in owners.values() for name in names} == watched.keys() - {"namespace", "services"}
    for owner, names in owners.items():
        for name in names:
            assert f'"{watched[name]}"' in sources[owner].read_text(), name
    reported = sum(
        len(re.findall(r'(?:Gauge|Total|Distribution)\("(?!Cache)', path.read_text())) for path in sources.values()
    )
    # The archiver names two of its gauges in a dictionary.
    assert reported + 2 == PRICES["own_metrics"]
    for owner, service in watched["services"].items():
        assert f'presence("{service}"' in " ".join(sources[owner].read_text().split()).replace("( ", "("), owner


# ------------------------------------------------------------------------------------------------------ the read cache


def cache_metrics() -> dict[str, Any]:
    """What envs/cache.tf calls the metrics and those who report them."""
    text = (TERRAFORM_DIR / "envs" / "cache.tf").read_text().split("cache_metrics = {", 1)[1].split("\n  }", 1)[0]
    return {name: value for name, value in hcl.parse(text).attributes.items() if name != "namespace"}


async def reported() -> dict[str, set[str]]:
    """By the name of the service, what each process with a cache reports."""

    class Nothing:
        async def get(self, key: str) -> bytes | None:
            return None

        async def fetch(self, query: str, *arguments: Any) -> list[Any]:
            return []

    found: dict[str, set[str]] = {}
    async with open_read_cache(ReadCacheSettings(read_cache="local"), groups(Nothing(), never_unsettled)) as cache:
        for node in (Node("a", "10.0.0.7:8001"), None):
            context = Context(node, cache, CachedReads(cache, Nothing()), ArchiveCheck(Nothing()), None)
            found[service_name(node)] = {metric.name for metric in await figures(context)}
    gateway = (TERRAFORM_DIR.parents[1] / "api_gateway" / "opening" / "figures.py").read_text()
    found["api_gateway"] = set(re.findall(r'(?:Total|Gauge)\("(Cache\w+)"', gateway))
    return found


async def test_the_cache_is_watched_by_metrics_that_are_reported() -> None:
    watched, found = cache_metrics(), await reported()
    services = watched.pop("services")
    assert services["node"] == service_name(Node("a", "10.0.0.7:8001"))
    assert services["front_end"] == service_name(None)
    # The gateway's is a reference to own_metrics, which the test before this one compares.
    assert services.keys() == {"gateway", "node", "front_end"}
    assert {watched["gets"], watched["loads"]} == found["api_gateway"]
    of_both = {watched[name] for name in ("gets", "loads", "shed")}
    assert of_both | {watched["seconds"]} == found["cache_front_end"]
    of_nodes = {watched[name] for name in ("served", "evictions", "bytes", "ring_nodes", "keeping")}
    assert of_both | of_nodes == found["cache_node"]
    assert sum(map(len, found.values())) == PRICES["cache_metrics"]


def test_alarms_of_the_cache_are_counted_by_their_metrics() -> None:
    """The sums of three services for gets and loads; two of the front ends; two of nodes."""
    text = (TERRAFORM_DIR / "modules" / "cache-alarms" / "main.tf").read_text()
    alarms = text.split("  alarms = {\n", 1)[1].split("\n  }\n", 1)[0]
    readers, sums = 3, alarms.count("local.sums.")
    others = alarms.count("local.front_end") * 2 + alarms.count("local.readers.node")
    assert sums * readers + others == PRICES["cache_alarm_metrics"]
