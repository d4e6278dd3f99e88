"""Where the platform under test is: given by the caller, or read from ``run.json`` of a stack that is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from infrastructure.local.state import RunRecord, run_path

CROWD_ENV: Final = {
    "GATEWAY_CONNECTIONS_PER_ADDRESS_MAX": "0",
    "FEED_CONNECTIONS_PER_ADDRESS_MAX": "0",
    "BID_WAIT_STANDING_MS": "0",
}
"""Settings of a platform that is started for a load run. All of its clients have the address of this machine. Each
bidder bids again as soon as it has its answer, so thousands of them are a standing queue for the whole run; what is
measured is how many bids are decided, and how long they wait then, not how many are refused."""


class TargetError(Exception):
    """The addresses are incomplete; the message names what to set."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Addresses of one platform: its gateway, and the three stores that the proof reads behind its back."""

    gateway_url: str
    redis_url: str
    nats_url: str
    postgres_url: str


SETTINGS = tuple(field.name for field in fields(Targets))


def choose_targets(given: Mapping[str, str | None], running: Targets | None) -> Targets | None:
    """The platform to test: the one that is named, else the one that is up here, else None.

    Args:
        given: address or None by name, from options or the environment.
        running: the platform that is up here.

    Raises:
        TargetError: some addresses are named, and the others cannot be known. They are taken from the
            platform that is up only if it agrees with those that are named: comparing the gateway of one
            platform with the stores of another would prove nothing.
    """
    named = {name: value for name in SETTINGS if (value := given.get(name))}
    if running is not None and all(getattr(running, name) == value for name, value in named.items()):
        return running
    if not named:
        return None
    missing = [name for name in SETTINGS if name not in named]
    if missing:
        raise TargetError(
            f"{', '.join(map(_setting, missing))} must be set too, since {_setting(next(iter(named)))} is: "
            "give all four addresses, or none to use the platform that is up here"
        )
    return Targets(**named)


def running_urls(data_dir: Path) -> Mapping[str, str] | None:
    """The addresses of the stack whose data is in ``data_dir``, None unless it is up and ready."""
    record = RunRecord.read(run_path(data_dir))
    if record is None or record.phase != "ready" or record.supervisor.find() is None:
        return None
    return record.urls


def running_targets(data_dir: Path) -> Targets | None:
    """The targets of the stack whose data is in ``data_dir``, None unless it is up and ready."""
    urls = running_urls(data_dir)
    if urls is None or any(name not in urls for name in SETTINGS):
        return None
    return Targets(**{name: urls[name] for name in SETTINGS})


def _setting(name: str) -> str:
    return name.upper()
