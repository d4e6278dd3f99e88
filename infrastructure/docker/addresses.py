"""Where the servers of the compose stack are, seen from the machine that it runs on.

The compose file publishes their ports on 127.0.0.1 and takes ports and passwords from ``.env`` and the environment. The
defaults here are the same; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shared.server_urls import with_credentials

COMPOSE_FILE: Final = Path(__file__).parents[2] / "docker-compose.localstack.yml"

DEFAULTS: Final = {
    "GATEWAY_PORT": "8080",
    "REDIS_PORT": "6479",
    "NATS_PORT": "4322",
    "POSTGRES_PORT": "5532",
    "AWS_PORT": "4566",
    "AWS_REGION": "us-east-1",
    "REDIS_PASSWORD": "local-redis",
    "NATS_PASSWORD": "local-nats",
    "POSTGRES_PASSWORD": "local-postgres",
    "METRICS_CLOUDWATCH_NAMESPACE": "Bidding/local",
}


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a ``.env``: ``NAME=value`` lines, perhaps in quotes; none if there is no file."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def compose_variables(environment: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """The values that the compose file gets: the environment wins over ``.env``, empty counts as unset."""
    given = read_env_file((folder or COMPOSE_FILE.parent) / ".env") | dict(environment)
    return DEFAULTS | {name: given[name] for name in DEFAULTS if given.get(name)}


def compose_urls(variables: Mapping[str, str]) -> dict[str, str]:
    """``gateway_url``, ``redis_url``, ``nats_url`` and ``postgres_url``, passwords included."""
    host = "127.0.0.1"
    postgres = f"postgresql://bidding@{host}:{variables['POSTGRES_PORT']}/bidding"
    return {
        "gateway_url": f"http://{host}:{variables['GATEWAY_PORT']}",
        "redis_url": with_credentials(
            f"redis://{host}:{variables['REDIS_PORT']}/0", password=variables["REDIS_PASSWORD"]
        ),
        "nats_url": with_credentials(
            f"nats://bidding@{host}:{variables['NATS_PORT']}", password=variables["NATS_PASSWORD"]
        ),
        "postgres_url": with_credentials(postgres, password=variables["POSTGRES_PASSWORD"]),
    }


def compose_aws(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment in which boto3 talks to the emulator."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{variables['AWS_PORT']}",
        "AWS_DEFAULT_REGION": variables["AWS_REGION"],
        "AWS_ACCESS_KEY_ID": "emulator",
        "AWS_SECRET_ACCESS_KEY": "emulator",
    }
