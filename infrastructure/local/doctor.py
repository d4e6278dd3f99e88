"""Checks whether this machine has everything that the embedded stack needs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import psutil

from infrastructure.local.errors import StackError
from infrastructure.local.remote import require_reachable, without_password
from infrastructure.local.servers import binaries
from infrastructure.local.servers.ports import Ports, holder_of, is_free, setting_of
from infrastructure.local.servers.valkey_cluster import is_redis
from infrastructure.local.services import ALL_SERVICES, PORTS_OF, PURPOSES
from infrastructure.local.state import RunRecord, living, run_path

Grade = Literal["ok", "warn", "fail"]

_MB = 1024 * 1024
_DISK_WARN_MB, _DISK_FAIL_MB = 2_000, 300
_MEMORY_WARN_MB = 800
_OPEN_FILES_WARN, _OPEN_FILES_FAIL = 8_192, 512


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `advice` says what to do, and is empty when there is nothing to do."""

    check: str
    grade: Grade
    detail: str
    advice: str = ""


def examine(data_dir: Path, ports: Ports, environment: Mapping[str, str]) -> list[Finding]:
    """All checks, in the order in which a start would fail at them. Starts nothing, changes nothing."""
    external = {name: environment.get(f"{name.upper()}_URL") for name in ("redis", "nats", "postgres")}
    return [
        check_python(sys.version_info[:2], sys.executable),
        *check_servers(external, environment),
        *check_ports(data_dir, ports, [name for name, url in external.items() if not url]),
        check_folder(data_dir),
        check_disk(_existing(data_dir)),
        check_memory(),
        check_open_files(),
    ]


def check_python(version: tuple[int, ...], executable: str) -> Finding:
    text = f"Python {'.'.join(map(str, version))} at {executable}"
    if version < (3, 11):
        return Finding("python", "fail", text, "Python 3.11 or newer is needed: make up PYTHON=python3.12")
    return Finding("python", "ok", text)


def check_servers(external: Mapping[str, str | None], environment: Mapping[str, str]) -> list[Finding]:
    """Each server: its executable and version, or, if a URL is given, whether something answers there."""
    finders: dict[str, Callable[[Mapping[str, str]], Path]] = {
        "redis": binaries.find_redis,
        "nats": binaries.find_nats,
        "postgres": lambda env: binaries.find_postgres(env) / "postgres",
    }
    return [_check_server(name, find, external[name], environment) for name, find in finders.items()]


def _check_server(
    name: str, find: Callable[[Mapping[str, str]], Path], url: str | None, environment: Mapping[str, str]
) -> Finding:
    try:
        if url:
            asyncio.run(require_reachable(f"{name.upper()}_URL", url))
            return Finding(name, "ok", f"used where it is: {without_password(url)}")
        executable = find(environment)
    except StackError as error:
        first, _, advice = str(error).partition("\n")
        return Finding(name, "fail", first, advice)
    version = binaries.version_of(executable)
    if version == "unknown":
        advice = "It does not run on this machine: look at what it says when called with --version."
        return Finding(name, "fail", str(executable), advice)
    return Finding(name, "ok", f"{version} at {executable}")


def check_ports(data_dir: Path, ports: Ports, servers: list[str]) -> list[Finding]:
    """Is each port free, or held by the process of this stack that should hold it?"""
    record = RunRecord.read(run_path(data_dir))
    ours = set(living(record)) if record is not None else set()
    if any(map(is_redis, ours)):
        ours.add("redis")
    findings: list[Finding] = []
    for process in (*ALL_SERVICES, *servers):
        for name in PORTS_OF[process]:
            port = getattr(ports, name)
            label = f"port {port}"
            if is_free(port):
                findings.append(Finding(label, "ok", f"free for {PURPOSES[name]}"))
            elif process in ours and record is not None and record.ports.get(name) == port:
                findings.append(Finding(label, "ok", f"in use by {process} of this stack"))
            else:
                detail = f"wanted for {PURPOSES[name]}, in use by {holder_of(port) or 'another process'}"
                findings.append(Finding(label, "fail", detail, f"Stop it, or set {setting_of(name)} to another port."))
    return findings


def check_folder(data_dir: Path) -> Finding:
    """Can files be made in the data directory? Or can the directory be made, if it does not exist?"""
    folder = _existing(data_dir)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "Choose another one with --data-dir or BIDDING_DATA_DIR, or change who may write to it."
        return Finding("data directory", "fail", f"{data_dir}: {error.strerror}", advice)
    note = "" if folder == data_dir.absolute() else " (to be made)"
    return Finding("data directory", "ok", f"{data_dir.absolute()}{note}")


def check_disk(folder: Path) -> Finding:
    free_mb = shutil.disk_usage(folder).free // _MB
    detail = f"{free_mb:,} MB free at {folder}"
    if free_mb < _DISK_FAIL_MB:
        return Finding("disk space", "fail", detail, "Make room, or choose another disk with --data-dir.")
    if free_mb < _DISK_WARN_MB:
        return Finding("disk space", "warn", detail, "Enough to start; every million bids takes about a gigabyte.")
    return Finding("disk space", "ok", detail)


def check_memory() -> Finding:
    free_mb = psutil.virtual_memory().available // _MB
    grade: Grade = "ok" if free_mb >= _MEMORY_WARN_MB else "warn"
    return Finding(
        "memory",
        grade,
        f"{free_mb:,} MB available",
        "" if grade == "ok" else "The whole stack uses about 500 MB.",
    )


def check_open_files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    detail = "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard:,} per process"
    if hard == resource.RLIM_INFINITY or hard >= _OPEN_FILES_WARN:
        return Finding("open files", "ok", detail)
    advice = f"Each viewer and bidder takes one: raise it with `ulimit -Hn {_OPEN_FILES_WARN}` or in limits.conf."
    return Finding("open files", "fail" if hard < _OPEN_FILES_FAIL else "warn", detail, advice)


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path
