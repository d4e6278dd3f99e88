"""`bidding status`: what runs, since when, and whether it is ready."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

import click
import psutil
from rich.text import Text

from infrastructure.local import cache_nodes
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.processes import family_of
from infrastructure.local.remote import without_password
from infrastructure.local.servers.ports import HOST, Ports
from infrastructure.local.servers.probes import Probe, http_ready, postgres_ready, redis_ready
from infrastructure.local.servers.valkey_cluster import is_redis
from infrastructure.local.services import PORTS_OF, service_of
from infrastructure.local.state import ProcessRecord, RunRecord, run_path
from infrastructure.local.terminal import show, table
from shared.server_urls import credentials_of

_COLOURS = {"ready": "green", "running": "green", "ended": "red"}


class Row(TypedDict):
    """One process, as `--json` shows it. Memory in bytes, with that of its children; uptime in seconds."""

    name: str
    pid: int
    port: int | None
    state: str
    uptime_s: float | None
    memory_bytes: int | None
    restarts: int


@click.command(epilog=examples("bidding status", "bidding status --json"))
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(data_dir: Path, as_json: bool) -> None:
    """Show the processes. Exit code 0 if the platform is up and all are ready, otherwise 1."""
    record = RunRecord.read(run_path(data_dir))
    running = record is not None and record.supervisor.find() is not None
    rows = asyncio.run(_rows(record)) if record is not None else []
    phase = _phase(record, running, rows)
    all_well = phase == "ready" and all(row["state"] == "ready" for row in rows)
    if as_json:
        urls = {name: without_password(url) for name, url in record.urls.items()} if record else {}
        answer: dict[str, Any] = {
            "phase": phase,
            "data_dir": str(data_dir.absolute()),
            "urls": urls,
            "processes": rows,
        }
        click.echo(json.dumps(answer, indent=2))
    else:
        headline = "not all is ready" if phase == "ready" and not all_well else phase
        click.echo(f"{headline} (data in {data_dir})" + ("\n" if rows else ""))
        if rows:
            show(table(map(_cells, rows), head=("NAME", "PID", "PORT", "STATE", "UPTIME", "MEMORY", "RESTARTS")))
    sys.exit(0 if all_well else 1)


def _phase(record: RunRecord | None, running: bool, rows: list[Row]) -> str:
    if record is None:
        return "stopped"
    if running:
        return record.phase
    return "left behind" if any(row["state"] != "ended" for row in rows) else "stopped"


async def _rows(record: RunRecord) -> list[Row]:
    ports = Ports(**record.ports)
    found = record.processes.items()
    states = await asyncio.gather(*(_state(name, entry, record, ports) for name, entry in found))
    return [_row(name, entry, state, ports) for (name, entry), state in zip(found, states, strict=True)]


def _row(name: str, entry: ProcessRecord, state: str, ports: Ports) -> Row:
    process = entry.find()
    return Row(
        name=name,
        pid=entry.pid,
        port=_port_of_redis(entry, ports) if is_redis(name) else _port(name, ports),
        state=state,
        uptime_s=round(time.time() - entry.create_time, 1) if process else None,
        memory_bytes=_memory(process) if process else None,
        restarts=entry.restarts,
    )


def _port_of_redis(entry: ProcessRecord, ports: Ports) -> int:
    """Each node of a cluster has its own."""
    port = entry.address.rpartition(":")[2]
    return int(port) if port else ports.redis


def _port(name: str, ports: Ports) -> int | None:
    """Where clients reach the process; several of one service share one port."""
    listener = service_of(name)
    return getattr(ports, PORTS_OF[listener][0]) if listener in PORTS_OF else cache_nodes.port_of(name, ports)


async def _state(name: str, entry: ProcessRecord, record: RunRecord, ports: Ports) -> str:
    process = entry.find()
    if process is None:
        return "ended"
    if process.status() == psutil.STATUS_STOPPED:
        return "suspended"
    probe = _probe(name, entry, record, ports)
    if probe is None:
        return "running"
    return "ready" if (await probe()).ok else "not ready"


def _probe(name: str, entry: ProcessRecord, record: RunRecord, ports: Ports) -> Probe | None:
    if is_redis(name):
        return redis_ready(HOST, _port_of_redis(entry, ports), credentials_of(record.urls["redis_url"]))
    if name == "nats":
        return http_ready(HOST, ports.nats_monitor, "/healthz")
    if name == "postgres":
        return postgres_ready(record.urls["postgres_url"])
    where = urlsplit(entry.address)
    return http_ready(where.hostname, where.port, "/ready") if where.hostname and where.port else None


def _memory(process: psutil.Process) -> int | None:
    try:
        return sum(each.memory_info().rss for each in (process, *family_of(process.pid)))
    except psutil.Error:
        return None


def _cells(row: Row) -> tuple[str | Text, ...]:
    memory = f"{row['memory_bytes'] / 1_048_576:.0f} MB" if row["memory_bytes"] is not None else "-"
    uptime = age_text(row["uptime_s"])
    return (
        row["name"],
        str(row["pid"]),
        str(row["port"] or "-"),
        Text(row["state"], style=_COLOURS.get(row["state"], "yellow")),
        uptime,
        memory,
        str(row["restarts"]),
    )


def age_text(seconds: float | None) -> str:
    """`3 s`, `12 min`, `4 h 05 min`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7_200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
