"""The platform's own services as processes: `python -m <name>`, configured by the environment."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from infrastructure.local.feed_secret import ALIAS_SECRET, FEED_TOKEN_SECRET, alias_secret, feed_token_secret
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.ports import HOST, Ports
from infrastructure.local.servers.probes import http_ready
from shared.permissions.accounts import Account

API_GATEWAY = "api_gateway"
BROADCAST_SERVICE = "broadcast_service"
ARCHIVAL_WORKER = "archival_worker"
ALL_SERVICES = (API_GATEWAY, BROADCAST_SERVICE, ARCHIVAL_WORKER)

# The account with which each service reaches the servers.
ACCOUNTS = {
    API_GATEWAY: Account.GATEWAY,
    BROADCAST_SERVICE: Account.BROADCASTER,
    ARCHIVAL_WORKER: Account.ARCHIVER,
    "cache_node": Account.CACHE,
}

PURPOSES = {
    "gateway": "the API gateway",
    "broadcast": "the live feed",
    "archiver": "the archival worker",
    "redis": "Redis",
    "nats": "NATS",
    "nats_monitor": "NATS monitoring",
    "postgres": "PostgreSQL",
    "cache": "the front end of the read cache",
    "cache_node": "the first node of the read cache; the others have those after it",
}

# A `.env` in the working directory may be that of the compose stack. What is meant for its servers and for AWS must not
# steer this stack, which has neither.
NOT_FROM_A_FILE = (
    "AWS_ENDPOINT_URL",
    "CLOUD_MAP_ADDRESS",
    "CLOUD_MAP_SERVICE_ID",
    "EXPORT_S3_BUCKET",
    "IMAGES_S3_BUCKET",
    "METRICS_CLOUDWATCH_NAMESPACE",
    "NATS_STREAM_REPLICAS",
    "READ_CACHE",
    "READ_CACHE_CLOUD_MAP",
    "READ_CACHE_MEMBERSHIP",
    "READ_CACHE_NODES",
    "READ_CACHE_TLS_CA_FILE",
    "READ_CACHE_TLS_CERT_FILE",
    "READ_CACHE_TLS_KEY_FILE",
)

KEY_SETTINGS = ("AUTH_JWKS_URL", "AUTH_JWKS_FILE", "AUTH_JWKS", "AUTH_HS256_SECRET")
"""Settings each of which names an issuer of the API's tokens."""

SERVICE_PORTS = ("gateway", "broadcast", "archiver", "cache", "cache_node")

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


SHARING = {API_GATEWAY: "GATEWAY", BROADCAST_SERVICE: "BROADCAST"}
"""Services of which several may share one port, and how their settings for that begin."""


def process_names(service: str, count: int) -> tuple[str, ...]:
    """The names of several processes of a service: `broadcast_service`, `broadcast_service-2`, …"""
    return (service, *(f"{service}-{number}" for number in range(2, count + 1)))


def service_of(process: str) -> str:
    """The service that a process is one of, or the process itself."""
    service, _, number = process.rpartition("-")
    return service if service in SHARING and number.isdecimal() else process


def wants_own_issuer(environment: Mapping[str, str]) -> bool:
    """Whether tokens are demanded, and no other issuer of them is named."""
    return environment.get("AUTH_MODE") == "jwt" and not any(environment.get(name) for name in KEY_SETTINGS)


def inherited_settings(data_dir: Path, environment: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment with the folders and secrets of a data directory, where neither it nor ``extra`` has others.

    Raises:
        StackError: a secret can be neither read nor made.
    """
    inherited = {"EXPORT_DIR": exports_dir(data_dir), "IMAGES_DIR": str(data_dir / "images")} | dict(environment)
    if not (extra.get(FEED_TOKEN_SECRET) or inherited.get(FEED_TOKEN_SECRET)):
        inherited[FEED_TOKEN_SECRET] = feed_token_secret(data_dir)
    demands_tokens = (inherited | dict(extra)).get("AUTH_MODE") == "jwt"
    if demands_tokens and not (extra.get(ALIAS_SECRET) or inherited.get(ALIAS_SECRET)):
        inherited[ALIAS_SECRET] = alias_secret(data_dir)
    if wants_own_issuer(inherited | dict(extra)):
        # Imported only here: the image of load runs, which start no stack, lacks the libraries that it imports.
        signing = importlib.import_module("infrastructure.local.signing_key")
        # The others are empty, whatever a `.env` says: one place of keys is allowed.
        others = dict.fromkeys((*KEY_SETTINGS, "AUTH_HS256_SECRET_ALSO", "AUTH_HS256_SECRET_SINCE"), "")
        inherited |= others | signing.identity_environment(data_dir, inherited | dict(extra))
    return inherited


def exports_dir(data_dir: Path) -> str:
    """Where the platform of a data directory has its exports, unless the environment says something else."""
    return str(data_dir / "exports")


def exports_here(data_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The setting that names :func:`exports_dir`, for commands that read exports; none if the environment has one."""
    is_said = environment.get("EXPORT_DIR") or environment.get("EXPORT_S3_BUCKET")
    return {} if is_said else {"EXPORT_DIR": exports_dir(data_dir)}


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

    An empty value stands for the default, so that a `.env` cannot say something else.
    """
    defaults = dict.fromkeys(NOT_FROM_A_FILE, "")
    defaults |= {host_setting(name): HOST for name in SERVICE_PORTS}
    # Catalogue and identity are open to everybody, unless tokens say who calls.
    is_open = "false" if (dict(inherited) | dict(extra)).get("AUTH_MODE") == "jwt" else "true"
    # People read its logs, with `bidding logs`.
    defaults |= {"OPEN_CATALOGUE": is_open, "OPEN_IDENTITY": is_open, "LOG_FORMAT": "text"}
    defaults["OPS_PARTS"] = f"broadcast_service={urls.broadcast_url},archival_worker={urls.archiver_url}"
    fixed = {
        "REDIS_URL": urls.redis_url,
        "NATS_URL": urls.nats_url,
        "POSTGRES_URL": urls.postgres_url,
        "GATEWAY_PORT": str(ports.gateway),
        "BROADCAST_PORT": str(ports.broadcast),
        "ARCHIVER_PORT": str(ports.archiver),
        "CACHE_PORT": str(ports.cache),
        "CACHE_NODE_PORT": str(ports.cache_node),
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
