"""Redis and NATS as private servers: their configuration files and how to run them."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from infrastructure.local.errors import StackError
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers import binaries, probes
from infrastructure.local.servers.append_only import drop_torn_transaction
from infrastructure.local.servers.ports import HOST, Ports

AppendFsync = Literal["always", "everysec", "no"]

_REDIS_CONFIG = """\
# Written at every start by `bidding up`; changes here are lost.
bind {host}
port {port}
protected-mode yes
dir {folder}
daemonize no
logfile ""
loglevel notice

# Every accepted bid is in the append-only file, on disk ("always") before its answer leaves the server.
appendonly yes
appendfsync {fsync}
no-appendfsync-on-rewrite no
aof-use-rdb-preamble yes
aof-load-truncated yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
# No snapshots beside it: everything in them is in the append-only file.
save ""

# Bids and the outbox are never thrown away to make room: a full Redis refuses writes.
maxmemory {memory}
maxmemory-policy noeviction
tcp-keepalive 60
"""

_NATS_CONFIG = """\
# Written at every start by `bidding up`; changes here are lost.
server_name: "bidding-local"
host: "{host}"
port: {port}
http: "{host}:{monitor}"

# One message carries the events of one outbox entry, at most 256: some 200 KB.
max_payload: 1MB

jetstream {{
  store_dir: {folder}
  # The default is three quarters of the free disk; on a small one our stream of 2 GiB could not be made.
  max_file_store: 4GB
  # Losing the last seconds is no loss: the outbox in Redis is kept until PostgreSQL has the events.
  sync_interval: {sync}
}}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class RedisAccess:
    """Who gets into Redis.

    Attributes:
        users: its file of users.
        owner: the user who may do everything, and the password; None if that user needs no password.
    """

    users: str
    owner: tuple[str, str] | None = None


def redis_url(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


def nats_url(port: int) -> str:
    return f"nats://{HOST}:{port}"


def _quoted(path: Path) -> str:
    """A path for a configuration file of Redis or NATS, quoted, so that it may have spaces."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _config_file(data_dir: Path, name: str) -> Path:
    # Not among the server's data, which may be deleted to see what then happens.
    folder = data_dir / "config"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _write_secret(path: Path, text: str) -> None:
    """Replace a file that its owner alone may read."""
    scratch = path.with_suffix(".tmp")
    # A file that a killed run has left may be readable by others.
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600, exist_ok=False)
    scratch.write_text(text)
    scratch.replace(path)


def redis_spec(
    data_dir: Path,
    port: int,
    environment: Mapping[str, str],
    appendfsync: AppendFsync = "always",
    *,
    name: str = "redis",
    more_config: str = "",
    access: RedisAccess | None = None,
) -> ProcessSpec:
    """Redis with an append-only file in `<data_dir>/<name>`; BinaryMissing when there is no redis-server.

    Without ``access`` everybody gets in and may do everything. REDIS_MAXMEMORY bounds its memory in Redis' notation,
    such as `512mb` (default `0`: the machine's memory).
    """
    if appendfsync not in get_args(AppendFsync):
        raise StackError(f"appendfsync must be one of {', '.join(get_args(AppendFsync))}, not {appendfsync!r}.")
    executable = binaries.find_redis(environment)
    folder = data_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    config = _config_file(data_dir, f"{name}.conf")
    if access is not None:
        users = _config_file(data_dir, f"{name}-users.acl")
        _write_secret(users, access.users)
        more_config += f"\naclfile {_quoted(users)}\n"
    config.write_text(
        _REDIS_CONFIG.format(
            host=HOST,
            port=port,
            folder=_quoted(folder),
            fsync=appendfsync,
            memory=environment.get("REDIS_MAXMEMORY") or "0",
        )
        + more_config
    )
    return ProcessSpec(
        name=name,
        argv=(str(executable), str(config)),
        env=plain_environment(environment),
        log=data_dir / "logs" / f"{name}.log",
        ready=probes.redis_ready(HOST, port, None if access is None else access.owner),
        address=f"{HOST}:{port}",
        stop_signal=signal.SIGTERM,
        # Loading a large append-only file takes a while.
        ready_timeout_s=120.0,
        prepare=lambda: drop_torn_transaction(executable, folder),
    )


def nats_spec(data_dir: Path, ports: Ports, environment: Mapping[str, str], *, users: str = "") -> ProcessSpec:
    """NATS with JetStream's files in `<data_dir>/nats`; BinaryMissing when there is no nats-server.

    ``users``: the part of its configuration that says who may do what; without it everybody may do everything.
    NATS_SYNC_INTERVAL says how often writes are forced to disk, such as `10s` (the default), or `always`.
    """
    sync = environment.get("NATS_SYNC_INTERVAL") or "10s"
    if not re.fullmatch(r"always|[0-9]+(ms|s|m|h)", sync):
        raise StackError(f"NATS_SYNC_INTERVAL must be always, or a time such as 10s, not {sync!r}.")
    executable = binaries.find_nats(environment)
    folder = data_dir / "nats"
    folder.mkdir(parents=True, exist_ok=True)
    config = _config_file(data_dir, "nats.conf")
    _write_secret(
        config,
        _NATS_CONFIG.format(
            host=HOST,
            port=ports.nats,
            monitor=ports.nats_monitor,
            folder=_quoted(folder),
            sync=sync if sync == "always" else f'"{sync}"',
        )
        + users,
    )
    return ProcessSpec(
        name="nats",
        argv=(str(executable), "--config", str(config)),
        env=plain_environment(environment),
        log=data_dir / "logs" / "nats.log",
        ready=probes.http_ready(HOST, ports.nats_monitor, "/healthz"),
        address=f"{HOST}:{ports.nats}",
        ready_timeout_s=60.0,
    )


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a server process needs, and none that could change its behaviour."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
    return {name: environment[name] for name in kept if name in environment} or {"PATH": os.defpath}
