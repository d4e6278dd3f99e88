"""What is refused before anything starts: targets that do not answer, crowds that this machine cannot hold, and load
that would leave this machine unasked."""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import httpx2 as httpx
import psutil

_ANSWER_TIMEOUT_S: Final = 5.0
DESCRIPTORS_SPARE: Final = 256
"""Descriptors that a process needs beside its connections: for files, pipes and the servers behind a service."""
_ALLOWANCE: Final = "GATEWAY_CONNECTIONS_PER_ADDRESS_MAX"
_ALLOWANCE_DEFAULT: Final = 1_000


class Refused(Exception):
    """The experiment is not begun; the message says why and what to do."""


def is_local(url: str) -> bool:
    """Whether all addresses of the URL's host are this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def ask_before_leaving(urls: Iterable[str], *, yes: bool) -> None:
    """Name the hosts outside of this machine to which load would go, and go on only if that is wanted.

    Raises:
        Refused: it is not, or nobody is there to be asked.
    """
    hosts = sorted({urlsplit(url).netloc.rpartition("@")[2] for url in urls if not is_local(url)})
    if not hosts or yes:
        return
    question = f"This sends load to {', '.join(hosts)}, which is not this machine. Is it yours, and shall it go there?"
    _ask(question, f"no load goes to {', '.join(hosts)} without a yes; --yes says it in advance")


def ask_before_changing(what: str, *, yes: bool) -> None:
    """Say what of an account of AWS is changed, wherever the load goes, and go on only if that is wanted.

    Raises:
        Refused: it is not, or nobody is there to be asked.
    """
    if not yes:
        _ask(
            f"This {what}. Is it yours, and shall that be done?",
            "nothing is changed on AWS without a yes; --yes says it",
        )


def _ask(question: str, refusal: str) -> None:
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise Refused(refusal)


async def require_answer(gateway_url: str) -> None:
    """Raises Refused unless a gateway answers there."""
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get(f"{gateway_url}/health")
    except (httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise Refused(f"nothing answers at {gateway_url} ({reason}); `bidding up` starts a platform here") from error
    if answer.status_code != 200:
        raise Refused(f"{gateway_url}/health answers {answer.status_code}; is that a gateway of this platform?")


def require_descriptors(count: int, processes: int, what: str) -> None:
    """Allow this process and its children as many files as the system lets them have.

    Raises:
        Refused: ``count`` connections from ``processes`` processes are more than that.
    """
    each = math.ceil(count / processes) + DESCRIPTORS_SPARE
    allowed = _raise_own_limit()
    if each > allowed:
        raise Refused(
            f"{count:,} {what} need {each:,} descriptors per process, and this machine allows {allowed:,}: "
            f"`ulimit -n` shows and sets the limit; at most {(allowed - DESCRIPTORS_SPARE) * processes:,} {what} fit"
        )


def require_ports(users: int, ports: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> None:
    """Raises Refused where this machine has too few ports for so many connections to one address: those that it lacks
    would fail here, and be counted as failures of the platform. Nothing is known of them outside of Linux."""
    try:
        low, high = map(int, ports.read_text().split())
    except (OSError, ValueError):
        return
    if users > high - low + 1:
        raise Refused(
            f"{users:,} users need as many ports, and this machine has {high - low + 1:,} for one target: "
            "`sysctl net.ipv4.ip_local_port_range` shows and sets them; or share the users among machines"
        )


def require_room(pids: Iterable[int], count: int, service: str) -> None:
    """Raises Refused where a service that runs here may not hold ``count`` connections."""
    limits = [_limit_of(pid) for pid in pids]
    room = sum(limit for limit in limits if limit is not None)
    if limits and None not in limits and count + DESCRIPTORS_SPARE > room:
        raise Refused(
            f"{service} may have {room:,} descriptors, too few for {count:,} connections: "
            "start the platform again after `ulimit -n` was raised"
        )


def require_allowance(gateway_pids: Iterable[int], count: int) -> None:
    """Raises Refused where a gateway that runs here lets one address have fewer connections than there are users."""
    for pid in gateway_pids:
        try:
            given = psutil.Process(pid).environ().get(_ALLOWANCE)
        except (psutil.Error, OSError):
            continue
        allowed = int(given) if given and given.isdigit() else _ALLOWANCE_DEFAULT
        if allowed and count > allowed:
            raise Refused(
                f"the gateway lets one address have {allowed:,} connections, and {count:,} users come from here: "
                f"start the platform again with {_ALLOWANCE}=0, or use --private"
            )


def _raise_own_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return 2**31
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
    return wanted


def _limit_of(pid: int) -> int | None:
    try:
        limits = psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)
    except (AttributeError, psutil.Error):
        return None
    return int(limits[0]) if limits[0] >= 0 else None
