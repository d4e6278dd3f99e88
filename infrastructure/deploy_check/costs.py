"""What an environment on AWS costs in a month: its variables times `infrastructure/terraform/prices.json`.

The README of `infrastructure/terraform/` and `bidding deploy-check` show the same lines, because both come from here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMES = "\N{MULTIPLICATION SIGN}"
PRICES_FILE = Path(__file__).parents[1] / "terraform" / "prices.json"

Prices = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the estimate: what it is for, how it is computed, and USD per month."""

    what: str
    sum: str
    usd: float


def load_prices(path: Path = PRICES_FILE) -> Prices:
    """The price list.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    prices: Prices = json.loads(path.read_text())
    return prices


def estimate(environment: str, values: Mapping[str, Any], prices: Prices) -> list[Line]:
    """The month's lines, without traffic that depends on the number of bids.

    Args:
        environment: ``dev`` or ``prod``: prod has PostgreSQL in two zones.
        values: the variables of the root module, with their defaults.

    Raises:
        KeyError: a variable is missing.
    """
    hours = prices["hours_per_month"]
    assumed = prices["assumed"][environment]
    zones, endpoint_zones = len(values["zones"]), values["endpoint_zones"]
    endpoints = prices["endpoint_services"] + (1 if values["enable_exec"] else 0)
    lines = [_tasks(name, values["services"][name], values, prices) for name in ("gateway", "broadcaster", "archiver")]
    nats = {"cpu": values["nats_cpu"], "memory": values["nats_memory"], "min": values["nats_servers"], "spot": False}
    lines.append(_tasks("NATS", nats, values, prices))
    if disk := values["nats_storage_gib"]:
        extra = (disk - 20) * values["nats_servers"]
        lines.append(
            _product("NATS disk past 20 GB", (extra, "GB"), (prices["fargate_storage_gb_hour"], "$"), (hours, "h"))
        )
    if values["nats_keep_disks"]:
        lines.append(
            _product(
                "NATS disks on EFS, assumed",
                (values["nats_servers"], ""),
                (assumed["nats_gb"], "GB"),
                (prices["efs_gb_month"], "$"),
            )
        )
    if values["cache_node_enabled"]:
        lines += read_cache(values, prices)
    lines += [
        _redis(values, prices),
        *_postgres(environment, values, prices),
        _product("load balancer", (prices["alb_hour"], "$"), (hours, "h")),
        _product(
            "its capacity units, assumed",
            (assumed["alb_capacity_units"], ""),
            (prices["alb_capacity_unit_hour"], "$"),
            (hours, "h"),
        ),
        _product("its public addresses", (zones, ""), (prices["public_ipv4_hour"], "$"), (hours, "h")),
        _product(
            "interface endpoints",
            (endpoints, ""),
            (endpoint_zones, "zones"),
            (prices["interface_endpoint_hour"], "$"),
            (hours, "h"),
        ),
        _product("traffic through them, assumed", (assumed["endpoint_gb"], "GB"), (prices["endpoint_gb"], "$")),
        _firewall(values, prices),
        _product("secrets", (prices["secrets"] + int(values["auth_mode"] == "jwt"), ""), (prices["secret_month"], "$")),
        _product("key", (1, ""), (prices["kms_key_month"], "$")),
        _product("Cloud Map zone", (1, ""), (prices["private_zone_month"], "$")),
        _product("logs, assumed", (assumed["log_gb"], "GB"), (prices["log_gb"], "$")),
        _product("own metrics", (prices["own_metrics"], ""), (prices["metric_month"], "$")),
        *_scraped("metrics that the collector scrapes", prices["scraped_metrics"], values, prices),
        _product("alarms", (_alarms(values), ""), (prices["alarm_month"], "$")),
        _product("images and exports, assumed", (assumed["stored_gb"], "GB"), (prices["s3_gb_month"], "$")),
    ]
    if values["container_insights"] != "disabled":
        parts = prices["container_insights_metrics"]
        metrics = parts["cluster"] + parts["per_service"] * (3 + values["nats_servers"])
        lines.append(_product("Container Insights", (metrics, "metrics"), (prices["metric_month"], "$")))
    return lines


def read_cache(values: Mapping[str, Any], prices: Prices) -> list[Line]:
    """What the read cache adds to a month, at its smallest number of tasks."""
    sizes = values["cache_services"]
    # An alarm that compares a sum costs as much as one for each metric in it.
    alarms = prices["cache_alarm_metrics"] + len(sizes) + int(values["cache_front_end"] == "alb")
    lines = [
        _tasks("cache node", sizes["node"], values, prices),
        _tasks("cache front end", sizes["front_end"], values, prices),
        _product("metrics of the cache", (prices["cache_metrics"], ""), (prices["metric_month"], "$")),
        *_scraped("metrics of the cache that the collector scrapes", prices["scraped_cache_metrics"], values, prices),
        _product("alarms of the cache, by metric", (alarms, ""), (prices["alarm_month"], "$")),
    ]
    if values["container_insights"] != "disabled":
        metrics = prices["container_insights_metrics"]["per_service"] * len(sizes)
        lines.append(_product("Container Insights of the cache", (metrics, "metrics"), (prices["metric_month"], "$")))
    return lines


def total(lines: Sequence[Line]) -> float:
    """USD per month. Each line is rounded to cents first, so that the shown lines add up to it."""
    return round(sum(round(line.usd, 2) for line in lines), 2)


def per_million_bids(environment: str, prices: Prices, *, viewers: int) -> list[Line]:
    """What a million accepted bids add, each shown to ``viewers``. A million KB (of 1,000 bytes) is a GB."""
    sizes = prices["assumed_per_bid"]
    through = sizes["request_kb"] + sizes["answer_kb"] + viewers * sizes["frame_kb"]
    out = sizes["answer_kb"] + viewers * sizes["frame_kb"]
    copies = 2 if environment == "prod" else 1
    # Each of three servers writes an event into its log and into the stream. In dev NATS has its task's own disk.
    kept = [_product("NATS' disks", (3, ""), (sizes["nats_kb"], "GB"), (prices["efs_write_gb"], "$"))]
    zones = (sizes["between_zones_kb"], "GB"), (2, ""), (prices["between_zones_gb"], "$")
    return [
        _product("firewall", (1, "million requests"), (prices["waf_million_requests"], "$")),
        _product("load balancer", (through, "GB"), (prices["alb_capacity_unit_hour"], "$")),
        _product("traffic to the internet", (out, "GB"), (prices["data_out_gb"], "$")),
        _product("traffic between zones", *zones),
        *(kept if environment == "prod" else []),
        _product(
            "archive, each month it is kept",
            (sizes["archive_kb"], "GB"),
            (copies, ""),
            (prices["rds_gp3_gb_month"], "$"),
        ),
    ]


def capacity_units(prices: Prices, *, viewers: int, frames_gb_per_hour: float = 0.0) -> float:
    """Capacity units of the load balancer while so many viewers are connected: its largest dimension counts.

    New connections are not among them: viewers stay.
    """
    by_connections: float = viewers / prices["alb_connections_per_unit"]
    by_traffic: float = frames_gb_per_hour / prices["alb_gb_per_unit"]
    return max(by_connections, by_traffic)


def viewers_added(values: Mapping[str, Any], prices: Prices, viewers: int) -> list[Line]:
    """What so many viewers cost if they stay the whole month. Viewers of one evening cost an evening's part of it.

    Without their frames, which `per_million_bids` counts.
    """
    hours, size = prices["hours_per_month"], values["services"]["broadcaster"]
    tasks = max(math.ceil(viewers / size["target"]) - size["min"], 0)
    units = capacity_units(prices, viewers=viewers)
    of_units = f"{viewers:,} / {prices['alb_connections_per_unit']:,} {TIMES} ${prices['alb_capacity_unit_hour']:g}"
    return [
        Line(
            "load balancer's capacity units",
            f"{of_units} {TIMES} {hours} h",
            units * prices["alb_capacity_unit_hour"] * hours,
        ),
        _tasks("more broadcaster", dict(size) | {"min": tasks}, values, prices),
    ]


def as_table(lines: Sequence[Line]) -> str:
    """The lines as a table in Markdown, with their total."""
    rows = [f"| {line.what} | {line.sum} | {line.usd:,.2f} |" for line in lines]
    return "\n".join(["| What | Sum | USD |", "|---|---|---:|", *rows, f"| **Total** | | **{total(lines):,.2f}** |"])


def _tasks(name: str, size: Mapping[str, Any], values: Mapping[str, Any], prices: Prices) -> Line:
    """Tasks of one service, at their minimum number. Spot counts at full price, because its price changes."""
    architecture, hours = values["cpu_architecture"], prices["hours_per_month"]
    vcpu, gb = size["cpu"] / 1024, size["memory"] / 1024
    vcpu_hour, gb_hour = prices["fargate_vcpu_hour"][architecture], prices["fargate_gb_hour"][architecture]
    text = f"({vcpu:g} vCPU {TIMES} ${vcpu_hour:g} + {gb:g} GB {TIMES} ${gb_hour:g})"
    return Line(
        f"{name} tasks" + (" (Spot, counted in full)" if size["spot"] else ""),
        f"{size['min']} {TIMES} {text} {TIMES} {hours} h",
        size["min"] * (vcpu * vcpu_hour + gb * gb_hour) * hours,
    )


def _scraped(what: str, count: int, values: Mapping[str, Any], prices: Prices) -> list[Line]:
    """A metric for each name and service; none without a collector."""
    if not values["collector_image_tag"]:
        return []
    return [_product(what, (count, ""), (prices["metric_month"], "$"))]


def _firewall(values: Mapping[str, Any], prices: Prices) -> Line:
    more = prices["rules_for_proxies"] if values.get("proxy_cidrs") else 0
    rules, rule = prices["rules_of_the_firewall"] + more, prices["waf_rule_month"]
    acl = prices["waf_acl_month"]
    return Line("firewall", f"${acl:g} + {rules} rules {TIMES} ${rule:g}", acl + rules * rule)


def _redis(values: Mapping[str, Any], prices: Prices) -> Line:
    on_memorydb = values["redis_engine"] == "memorydb"
    table = prices["memorydb_node_hour" if on_memorydb else "elasticache_node_hour"]
    nodes, node = _redis_nodes(values), values["redis_node_type"]
    return _of_list(f"{'MemoryDB' if on_memorydb else 'ElastiCache'} {node}", nodes, node, table, prices)


def _redis_nodes(values: Mapping[str, Any]) -> int:
    return 1 if values["redis_engine"] == "memorydb" else values["redis_shards"] * (1 + values["redis_replicas"])


def _postgres(environment: str, values: Mapping[str, Any], prices: Prices) -> list[Line]:
    copies = 2 if environment == "prod" else 1
    size, disk = values["postgres_instance_class"], values["postgres_storage_gb"]
    where = " in two zones" if copies == 2 else ""
    storage = _product(f"its disk{where}", (copies, ""), (disk, "GB"), (prices["rds_gp3_gb_month"], "$"))
    return [_of_list(f"PostgreSQL {size}{where}", copies, size, prices["rds_postgres_hour"], prices), storage]


def _of_list(what: str, count: int, size: str, table: Mapping[str, float], prices: Prices) -> Line:
    if size not in table:
        return Line(f"{what}: not in prices.json", "not counted", 0.0)
    return _product(what, (count, ""), (table[size], "$"), (prices["hours_per_month"], "h"))


def _alarms(values: Mapping[str, Any]) -> int:
    """The alarms of modules/observability/alarms.tf: on AWS' metrics, per Redis node, per service, and on our own."""
    return 9 + 2 * _redis_nodes(values) + (3 + int(values["nats_servers"])) + 6


def _product(what: str, *factors: tuple[float, str]) -> Line:
    """A line for a product of factors with their units; the unit of a price is $."""
    shown = [f"${value:g}" if unit == "$" else f"{value:g} {unit}".rstrip() for value, unit in factors]
    return Line(what, f" {TIMES} ".join(shown), math.prod(value for value, _ in factors))
