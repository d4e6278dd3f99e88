"""The platform's own services as processes: `python -m <name>`, configured by the environment."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from infrastructure.local.ports import HOST, Ports
from infrastructure.local.probes import http_ready
from infrastructure.local.processes import ProcessSpec

API_GATEWAY = "api_gateway"
BROADCAST_SERVICE = "broadcast_service"
ARCHIVAL_WORKER = "archival_worker"
ALL_SERVICES = (API_GATEWAY, BROADCAST_SERVICE, ARCHIVAL_WORKER)

PURPOSES = {
    "gateway": "the API gateway",
    "broadcast": "the live feed",
    "archiver": "the archival worker",
    "redis": "Redis",
    "nats": "NATS",
    "nats_monitor": "NATS monitoring",
    "postgres": "PostgreSQL",
}

# Which port of `Ports` a process listens on.
PORTS_OF = {
    API_GATEWAY: ("gateway",),
    BROADCAST_SERVICE: ("broadcast",),
    ARCHIVAL_WORKER: ("archiver",),
    "redis": ("redis",),
    "nats": ("nats", "nats_monitor"),
    "postgres": ("postgres",),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Urls:
    """Where everything is reached, from this machine."""

    redis_url: str
    nats_url: str
    postgres_url: str
    gateway_url: str
    broadcast_url: str
    archiver_url: str

    def as_dict(self) -> dict[str, str]:
        return dataclasses.asdict(self)


def is_installed(module: str) -> bool:
    """Can `python -m <module>` run at all?"""
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False


def service_environment(
    urls: Urls, ports: Ports, inherited: Mapping[str, str], extra: Mapping[str, str]
) -> dict[str, str]:
    """What every service of this stack is started with; `extra` wins over all of it."""
    defaults = {"GATEWAY_HOST": HOST, "BROADCAST_HOST": HOST, "OPEN_CATALOGUE": "true"}
    fixed = {
        "REDIS_URL": urls.redis_url,
        "NATS_URL": urls.nats_url,
        "POSTGRES_URL": urls.postgres_url,
        "GATEWAY_PORT": str(ports.gateway),
        "BROADCAST_PORT": str(ports.broadcast),
        "ARCHIVER_PORT": str(ports.archiver),
        "PYTHONUNBUFFERED": "1",
    }
    return defaults | dict(inherited) | fixed | dict(extra)


def service_spec(name: str, module: str, port: int, data_dir: Path, environment: Mapping[str, str]) -> ProcessSpec:
    """`python -m <module>`, ready when GET /ready on its port answers 200."""
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", module),
        env=environment,
        log=data_dir / "logs" / f"{name}.log",
        ready=http_ready(HOST, port, "/ready"),
        address=f"http://{HOST}:{port}",
        stop_timeout_s=15.0,
    )
