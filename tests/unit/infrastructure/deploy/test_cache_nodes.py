"""The processes of the read cache in the embedded stack: their names, ports and environments."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from infrastructure.local import cli
from infrastructure.local.cache_nodes import FRONT_END, cache_specs, node_names, port_of, wanted_ports
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from infrastructure.local.state import ProcessRecord, RunRecord, own_record, run_path
from tests.tcp import served_by_thread

PORTS = Ports(cache=9_900, cache_node=8_500)


def test_nodes_and_front_end_have_ports_that_are_known() -> None:
    assert node_names(2) == ("cache_node-1", "cache_node-2")
    named = {name: port_of(name, PORTS) for name in (*node_names(3), FRONT_END, "api_gateway", "cache_node-x")}
    assert named == {
        "cache_node-1": 8_500,
        "cache_node-2": 8_501,
        "cache_node-3": 8_502,
        "cache_front_end": 9_900,
        "api_gateway": None,
        "cache_node-x": None,
    }
    wanted = wanted_ports(2, PORTS, {"CACHE_HOST": "0.0.0.0"})
    assert [(each.name, each.port) for each in wanted] == [
        ("cache", 9_900),
        ("cache_node", 8_500),
        ("cache_node", 8_501),
    ]
    assert wanted_ports(0, PORTS, {}) == []


def test_each_process_is_told_who_it_is(tmp_path: Path) -> None:
    given = {"CACHE_HOST": "0.0.0.0", "CACHE_PORT": "9900", "LOG_LEVEL": "DEBUG"}
    one, two, front_end = cache_specs(2, PORTS, tmp_path, given)
    assert [spec.env["CACHE_ROLE"] for spec in (one, two, front_end)] == ["node", "node", "front_end"]
    assert [spec.env["CACHE_NODE_PORT"] for spec in (one, two)] == ["8500", "8501"]
    assert [spec.env["CACHE_NODE_NAME"] for spec in (one, two)] == ["cache_node-1", "cache_node-2"]
    assert one.env["CACHE_HOST"] == "127.0.0.1", "the front end alone is for others"
    assert (front_end.env["CACHE_HOST"], front_end.env["CACHE_PORT"]) == ("0.0.0.0", "9900")
    assert len({one.env["CACHE_PORT"], two.env["CACHE_PORT"], "9900"}) == 3
    assert front_end.address == "http://127.0.0.1:9900"
    assert {spec.env["LOG_LEVEL"] for spec in (one, two, front_end)} == {"DEBUG"}
    assert cache_specs(0, PORTS, tmp_path, given) == []


def test_the_gateway_reads_through_nodes_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("READ_CACHE", raising=False)
    assert Stack(tmp_path, ports=PORTS).service_env["READ_CACHE"] == ""
    assert Stack(tmp_path, ports=PORTS, cache_nodes=3).service_env["READ_CACHE"] == "cluster"
    given = Stack(tmp_path, ports=PORTS, cache_nodes=3, env={"READ_CACHE": "local"}).service_env
    assert given["READ_CACHE"] == "local"


# ------------------------------------------------------------------------------------------------ the command

STATS: dict[str, Any] = {
    "role": "node",
    "epoch": 7,
    "nodes": {"cache_node-1": "127.0.0.1:8500"},
    "shares": {"cache_node-1": 1.0},
    "keeping": True,
    "bytes_used": 3 * 1024**2,
    "bytes_max": 64 * 1024**2,
    "entries": 1_234,
    "counts": {
        "gets": 0,
        "hits": 0,
        "mirror_hits": 0,
        "served": 10,
        "served_hits": 9,
        "loads": 1,
        "fetches": 0,
        "shed": 0,
    },
}


@contextmanager
def answering(stats: dict[str, Any]) -> Iterator[str]:
    """A node or front end with these numbers; under /api it has items/lot."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, status = json.dumps(stats).encode(), 200
            if self.path.startswith("/api"):
                found = "lot" in self.path
                body, status = (b'{"id":"lot"}', 200) if found else (b'{"detail":"there is no closed item"}', 404)
            if "proxy" in self.path:
                body, status = b"<h1>Bad gateway</h1>", 502
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with served_by_thread(server):
        yield f"http://127.0.0.1:{server.server_port}"


def run(folder: Path, addresses: dict[str, str], *arguments: str) -> tuple[int, str]:
    processes = {name: ProcessRecord(2**22 + 1, time.time(), address) for name, address in addresses.items()}
    ports = {name: getattr(Ports(), name) for name in Ports.__slots__}
    RunRecord("ready", own_record(), {}, ports, processes).write(run_path(folder))
    result = CliRunner().invoke(cli.main, ["cache", *arguments, "--data-dir", str(folder)])
    return result.exit_code, result.output


def test_the_ring_and_who_sees_it(tmp_path: Path) -> None:
    with (
        answering(STATS) as node,
        answering(STATS | {"role": "front_end", "keeping": None, "nodes": {"cache_node-1": None}}) as front_end,
    ):
        addresses = {"cache_node-1": node, FRONT_END: front_end}
        code, output = run(tmp_path, addresses, "ring")
        assert code == 0, output
        assert "127.0.0.1:8500" in output
        assert "100.0%" in output
        code, output = run(tmp_path, addresses, "stats")
        assert (code, "90.0%" in output, "3.0 of 64 MB" in output, "1,234" in output) == (0, True, True, True)
        assert run(tmp_path, addresses, "get", "items/lot") == (0, '{"id":"lot"}\n')
        code, output = run(tmp_path, addresses, "get", "items/other")
        assert (code, "there is no closed item" in output) == (1, True)
        code, output = run(tmp_path, addresses, "get", "items/proxy")
        assert (code, output) == (1, "Error: The front end answers with status 502.\n")
        code, output = run(tmp_path, addresses | {"cache_node-2": "http://127.0.0.1:9"}, "ring")
        assert (code, "does not answer" in output, "do not agree" in output) == (1, True, True)


def test_a_platform_without_nodes_is_told_so(tmp_path: Path) -> None:
    code, output = run(tmp_path, {"api_gateway": "http://127.0.0.1:9"}, "stats")
    assert (code, "up --cache-nodes 3" in output) == (1, True)
