"""docs/feed.md says what is there: its frames and operations are such, its codes are the service's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from broadcast_service.core import close_codes
from broadcast_service.core.quota import SINCE_COST, noise_rate, operations_rate
from broadcast_service.settings import Settings
from shared.http.problems import INTERNAL_ERROR
from tests.documents.asyncapi import AsyncApi

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "feed.md").read_text()

EXAMPLES = [line for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].partition("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def api() -> AsyncApi:
    return AsyncApi()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text[:40])
def test_every_example_is_as_described(api: AsyncApi, example: str) -> None:
    content = json.loads(example)
    assert len(api.names_of(content)) == 1, api.why_not(content)


def test_every_kind_of_message_has_an_example(api: AsyncApi) -> None:
    shown = {name for example in EXAMPLES for name in api.names_of(json.loads(example))}
    assert set(api.messages) - shown == set()


def test_every_field_is_on_the_page(api: AsyncApi) -> None:
    for schema in api.document["components"]["schemas"].values():
        for part in (schema, *schema.get("allOf", ())):
            for name in part.get("properties", {}):
                assert f'"{name}"' in PAGE or f"`{name}`" in PAGE, name


def test_the_close_codes_are_those_of_the_service() -> None:
    documented = {int(code): (name.strip("`"), back == "yes") for code, name, back, _ in rows("Close codes")}
    codes = (*close_codes.RECONNECT, *close_codes.FINAL)
    assert documented == {each.code: (each.name, each.reconnect) for each in codes}


def codes_in_code(call: str) -> set[str]:
    folders = (ROOT / "broadcast_service", ROOT / "shared" / "http")
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    return {code for source in sources for code in re.findall(rf'\b{call}\([^"()]*"([A-Z_]+)"', source)}


def test_the_codes_of_error_frames_are_those_of_the_service() -> None:
    documented = {code.strip("`") for code, _ in rows("Errors")}
    # The code of a missing or lost item is the domain's own.
    assert documented == codes_in_code("error_frame") | codes_in_code("_tell") | {"ITEM_NOT_FOUND", "BEING_REBUILT"}


def test_the_codes_of_refused_upgrades_are_those_of_the_service() -> None:
    documented = {
        code for _, codes, _ in rows("When the upgrade is refused") for code in re.findall(r"[A-Z_]{4,}", codes)
    }
    in_code = {"ITEM_NOT_FOUND", INTERNAL_ERROR}.union(
        *map(codes_in_code, ("problem", "_refuse", "_Refused", "Refusal"))
    )
    # That of /metrics, which is no upgrade.
    assert documented == in_code - {"FORBIDDEN"}


def test_the_limits_are_the_defaults() -> None:
    fields = Settings.model_fields
    limits = {what: limit for what, limit, _ in rows("Limits")}

    def default(name: str) -> float:
        value = fields[name].default
        assert isinstance(value, int | float)
        return value

    assert limits["connections"] == f"{default('feed_connections_max'):,}"
    assert limits["connections of one address"] == f"{default('feed_connections_per_address_max'):,}"
    assert limits["items of one connection"] == str(default("feed_items_per_connection_max"))
    operations = operations_rate(default("feed_operations_rate_max"), int(default("feed_items_per_connection_max")))
    limit = f"{operations.per_s:g} a second; {operations.burst:,} at once"
    assert limits["[operations](#how-much-a-client-may-say) of one connection"] == limit
    noise = noise_rate(operations)
    limit = f"{noise.per_s:g} a second; {noise.burst:,} at once"
    assert limits["pings and fragments of one connection"] == limit
    counts = {row[0]: int(row[1]) for row in rows("Operations") if row[1].isdigit()}
    assert counts["an item in `subscribe` with `since`"] == SINCE_COST
    attempts = f"{default('feed_attempts_rate_max'):g} a second; {limits['connections of one address']} at once"
    assert limits["attempts of one address to connect"] == attempts
    assert limits["message of a client"] == f"{default('feed_message_bytes_max') // 1024:g} KiB"
    assert limits["frames of one item a second"].startswith(f"{default('feed_rate_max'):g},")
    assert limits["frames that wait for a viewer"] == str(default("feed_queue_frames_max"))
    assert limits["bytes that wait after that"] == f"{default('feed_queue_bytes_max') // 1024**2:g} MiB"
    assert limits["time without reading"] == f"{default('feed_stalled_max_s'):g} s"
    assert limits["pings without an answer"] == f"{default('feed_ping_timeout_s'):g} s"
    assert "(`FEED_VIEWERS_S`)" in PAGE
    assert f"At most every {default('feed_viewers_s'):g} s" in section("Viewers")
    assert f"`heartbeat_s` seconds ({default('feed_time_s'):g})" in section("Heartbeats and countdowns")
    assert f"latest {default('feed_replay_events_max')} events" in section("Coming back")
