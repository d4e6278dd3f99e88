"""The platform's own services as processes: `python -m <name>`, configured by the environment."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.ports import HOST, Ports
from infrastructure.local.servers.probes import http_ready

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

# A `.env` in the working directory may be that of the compose stack. What is meant for its servers and for AWS must not
# steer this stack, which has neither.
NOT_FROM_A_FILE = (
    "AWS_ENDPOINT_URL",
    "CLOUD_MAP_ADDRESS",
    "CLOUD_MAP_SERVICE_ID",
    "EXPORT_S3_BUCKET",
    "METRICS_CLOUDWATCH_NAMESPACE",
    "NATS_STREAM_REPLICAS",
)

SERVICE_PORTS = ("gateway", "broadcast", "archiver")

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
    """Where clients on this machine reach everything."""

    redis_url: str
    nats_url: str
    postgres_url: str
    gateway_url: str
    broadcast_url: str
    archiver_url: str

    def as_dict(self) -> dict[str, str]:
        return dataclasses.asdict(self)


def broadcaster_names(count: int) -> tuple[str, ...]:
    """The process names of several broadcasters: `broadcast_service`, `broadcast_service-2`, …"""
    return (BROADCAST_SERVICE, *(f"{BROADCAST_SERVICE}-{number}" for number in range(2, count + 1)))


def host_setting(port_name: str) -> str:
    """The variable for the address that a service listens on: `gateway` → `GATEWAY_HOST`."""
    return f"{port_name.upper()}_HOST"


def reachable_host(port_name: str, environment: Mapping[str, str]) -> str:
    """Where to reach a service from here, given the address that it listens on."""
    host = environment.get(host_setting(port_name), "")
    return {"": HOST, "0.0.0.0": HOST, "*": HOST, "::": "::1"}.get(host, host)


def http_url(host: str, port: int) -> str:
    """`http://127.0.0.1:8080`, and `http://[::1]:8080`."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def service_environment(
    urls: Urls, ports: Ports, inherited: Mapping[str, str], extra: Mapping[str, str]
) -> dict[str, str]:
    """The environment of every service of this stack; `extra` wins over all of it.

    Empty is the default, also where a `.env` says something else.
    """
    defaults = dict.fromkeys(NOT_FROM_A_FILE, "")
    defaults |= {host_setting(name): HOST for name in SERVICE_PORTS}
    defaults |= {"OPEN_CATALOGUE": "true", "OPEN_IDENTITY": "true"}
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


def service_spec(
    name: str, module: str, host: str, port: int, data_dir: Path, environment: Mapping[str, str]
) -> ProcessSpec:
    """`python -m <module>`, ready when GET /ready on its port answers 200."""
    return ProcessSpec(
        name=name,
        # -P: run this project's modules, not folders of the same names in the current directory.
        argv=(sys.executable, "-P", "-m", module),
        env=environment,
        log=data_dir / "logs" / f"{name}.log",
        ready=http_ready(host, port, "/ready"),
        address=http_url(host, port),
        stop_timeout_s=15.0,
    )
