"""Writes a ``.env`` with random passwords for the compose stack: ``python3 infrastructure/docker/make_env.py``.

Run it before the first start: PostgreSQL takes its passwords when its volume is new. Standard library only, so that it
runs with any Python. An existing file is left alone.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Final

SECRETS: Final = (
    "REDIS_PASSWORD",
    "NATS_PASSWORD",
    "POSTGRES_PASSWORD",
    "POSTGRES_SUPERUSER_PASSWORD",
    "GATEWAY_PASSWORD",
    "BROADCASTER_PASSWORD",
    "ARCHIVER_PASSWORD",
    "CACHE_PASSWORD",
    "OPERATOR_PASSWORD",
    "ALIAS_SECRET",
    "FEED_TOKEN_SECRET",
    "GRAFANA_PASSWORD",
)
"""Every variable of the compose file that is a secret."""

_BYTES: Final = 32


def text() -> str:
    """A new file's content. Secrets are hexadecimal, so that no shell, URL or configuration file needs quoting."""
    lines = ["# Written by infrastructure/docker/make_env.py. Keep it to yourself.", "ENVIRONMENT=production"]
    lines += [f"{name}={secrets.token_hex(_BYTES)}" for name in SECRETS]
    # Off except on a laptop: see docs/configuration.md.
    lines += ["OPEN_CATALOGUE=false", "OPEN_IDENTITY=false"]
    return "\n".join(lines) + "\n"


def write(path: Path) -> None:
    """Write the file, readable by its owner alone.

    Raises:
        FileExistsError: it exists; new passwords would not fit the existing volumes.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text())


def main() -> None:
    """Write it at the root of the repository."""
    path = Path(__file__).parents[2] / ".env"
    try:
        write(path)
    except FileExistsError:
        sys.exit(f"{path} is there already and is left as it is")
    sys.stdout.write(f"{path} written; docker compose reads it by itself\n")


if __name__ == "__main__":
    main()
