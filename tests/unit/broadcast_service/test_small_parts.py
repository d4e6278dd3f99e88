"""Origins, close codes, ``since``, the numbering of a consumer, settings and the text of the counters."""

from __future__ import annotations

import ast
import asyncio
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import broadcast_service
from broadcast_service.core import close_codes
from broadcast_service.core.close_codes import FINAL, RECONNECT, CloseCode
from broadcast_service.core.origins import is_allowed
from broadcast_service.endpoints.operations import SinceInvalid, parse_since
from broadcast_service.metrics import LATENCY_BOUNDS_S, Metrics
from broadcast_service.settings import Settings
from shared.streams.ack_subject import consumer_sequence
from shared.streams.follower import Follower
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "127.0.0.1:8081", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8081", True),
        ("http://localhost:8080", "127.0.0.1:8081", True),
        ("http://[::1]:8080", "localhost:8081", True),
        ("https://auction.example", "auction.example", True),
        ("https://auction.example:8443", "AUCTION.example:443", True),
        ("https://partner.example", "auction.example", True),
        ("https://PARTNER.example", "auction.example", True),
        ("https://partner.example.evil.example", "auction.example", False),
        ("http://evil.example", "127.0.0.1:8081", False),
        ("http://127.0.0.1.evil.example", "127.0.0.1:8081", False),
        ("http://localhost.evil.example", "localhost:8081", False),
        ("http://localhost:8080", "auction.example", False),
        ("null", "127.0.0.1:8081", False),
        ("", "127.0.0.1:8081", False),
        ("http://[", "127.0.0.1:8081", False),
        ("http://127.0.0.1:8080", None, False),
        ("http://127.0.0.1:8080", "", False),
    ],
)
def test_origins(origin: str | None, host: str | None, allowed: bool) -> None:
    assert is_allowed(origin, host, ("https://partner.example",)) is allowed


def test_a_star_allows_every_origin() -> None:
    assert is_allowed("http://anywhere.example", "feed.example", ("*",))


def test_origins_of_the_settings() -> None:
    assert Settings(feed_origins=" https://A.example, ,http://b.example ").origins == (
        "https://a.example",
        "http://b.example",
    )
    assert Settings().origins == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"feed_trusted_proxies": "10.0.0.7/16"},
        {"feed_trusted_proxies": "proxy.example"},
        {"feed_trusted_proxies": "*, 10.0.0.7"},
        {"feed_origins": "auction.example"},
        {"feed_origins": "https://a.example, https://b.example/"},
        {"feed_origins": "https://a.example/room"},
    ],
)
def test_what_could_never_match_is_not_taken_for_a_setting(settings: dict[str, str]) -> None:
    """Otherwise only refused clients would notice the mistake."""
    [name] = settings
    with pytest.raises(ValidationError, match=name):
        Settings(**settings)  # type: ignore[arg-type]


def test_proxies_of_the_settings() -> None:
    assert Settings(feed_trusted_proxies=" 10.0.0.7, fd00::/8,").trusted_proxies == ("10.0.0.7", "fd00::/8")
    assert Settings(feed_trusted_proxies="*").trusted_proxies == ("*",)
    assert Settings(feed_origins="*, null, http://[::1]:8080").origins == ("*", "null", "http://[::1]:8080")


def test_every_close_code_is_listed_once_and_can_be_sent() -> None:
    defined = {value for value in vars(close_codes).values() if isinstance(value, CloseCode)}
    listed = [*RECONNECT, *FINAL]
    assert set(listed) == defined
    assert len({code.code for code in listed}) == len({code.name for code in listed}) == len(listed)
    assert all(code.reconnect for code in RECONNECT)
    assert not any(code.reconnect for code in FINAL)
    for code in listed:
        assert len(code.reason.encode()) <= 123
        if code.code >= 4000:
            assert (4400 <= code.code < 4500) is not code.reconnect, "clients go by the hundred"


@pytest.mark.parametrize(("text", "version"), [("1:17", (1, 17)), ("0:-1", (0, -1)), ("12:0", (12, 0))])
def test_since(text: str, version: tuple[int, int]) -> None:
    assert parse_since(text) == version


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "1:-2", "a:b", "1:1\n", "1:1:1", "1.0:1", "²:1", "9" * 16 + ":1"]
)
def test_anything_else_is_no_since(text: str) -> None:
    with pytest.raises(SinceInvalid):
        parse_since(text)


@pytest.mark.parametrize(
    ("reply", "sequence"),
    [
        ("$JS.ACK.AUCTION_EVENTS.abc.1.900.17.1700000000.0", 17),
        ("$JS.ACK.hub.ACCOUNT.AUCTION_EVENTS.abc.1.900.17.1700000000.0.token", 17),
        ("_INBOX.abc", None),
        ("", None),
    ],
)
def test_the_number_in_a_consumers_sequence(reply: str, sequence: int | None) -> None:
    assert consumer_sequence(reply) == sequence


def test_latencies_are_counted_in_cumulative_buckets() -> None:
    metrics = Metrics()
    for seconds in (-0.5, 0.0009, 0.003, 99.0):
        metrics.observe_latency(seconds)
    lines = metrics.render(connections=1, items=2, subscriptions=3, stream_up=True).splitlines()
    buckets = [line for line in lines if line.startswith("feed_latency_seconds_bucket")]
    assert len(buckets) == len(LATENCY_BOUNDS_S) + 1
    assert buckets[0] == 'feed_latency_seconds_bucket{le="0.001"} 2'
    assert buckets[-2:] == ['feed_latency_seconds_bucket{le="10"} 3', 'feed_latency_seconds_bucket{le="+Inf"} 4']
    assert "feed_latency_seconds_count 4" in lines
    assert "feed_stream_up 1" in lines
    assert "feed_subscriptions 3" in lines


def test_every_sample_has_help_and_type_before_it() -> None:
    metrics = Metrics()
    metrics.connections_closed["slow_viewer"] += 2
    metrics.upgrades_refused["422"] += 1
    described: set[str] = set()
    for line in metrics.render(connections=0, items=0, subscriptions=0, stream_up=False).splitlines():
        if line.startswith("# TYPE "):
            described.add(line.split()[2])
        elif not line.startswith("#"):
            name = line.partition(" ")[0].partition("{")[0]
            assert name in described or name.rpartition("_")[0] in described, line
    assert "feed_connections_closed_total" in described


def test_the_pure_parts_import_no_driver() -> None:
    """The core can be tested without a network because it imports none."""
    folder = Path(broadcast_service.__file__).parent
    allowed = {*sys.stdlib_module_names, "msgspec", "shared", "broadcast_service"} - {"asyncio", "socket", "time"}
    pure = sorted((folder / "core").glob("*.py"))
    assert len(pure) > 10
    for path in pure:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in modules:
                assert module.partition(".")[0] in allowed, f"{path.name} imports {module}"
                assert not module.startswith("shared.clients"), f"{path.name} imports {module}"
                if module.startswith("broadcast_service."):
                    assert module.startswith("broadcast_service.core."), f"{path.name} imports {module}"


class Nobody:
    """A listener that is never called."""

    def on_message(self, subject: str, data: bytes) -> None: ...

    def on_stream_up(self) -> None: ...

    def on_stream_down(self) -> None: ...


async def test_a_stream_that_cannot_be_reached_is_named_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    source = Follower("nats://ann:hunter2@127.0.0.1:none", name="feed", heartbeat_s=1)
    task = asyncio.create_task(source.run(Nobody()))

    async def is_told() -> bool:
        return "cannot connect to" in caplog.text

    assert await eventually(is_told)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "127.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text
