"""Whether a deployed version answers: through the load balancer, as everybody else sees it. It writes nothing."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from infrastructure.deploy.errors import DeployError, Unverified

_TIMEOUT_S: Final = 10.0
_ANSWER_BYTES_MAX: Final = 1024 * 1024
_IN_A_ROW: Final = 3
"""Good rounds in a row. One is not enough: behind a balancer it may have met the only task that works."""


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        DeployError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeployError(f"{url!r} is no address such as https://auction.example.com")
    return url.rstrip("/")


def problems(url: str) -> Iterator[str]:
    """What is wrong, a line for each; nothing where all is well."""
    checks: tuple[tuple[str, Callable[[Any], str]], ...] = (
        ("/health", lambda body: "" if body.get("status") == "healthy" else f"says {body.get('status')!r}"),
        ("/ready", lambda body: "" if body.get("status") == "ready" else f"says {body.get('status')!r}"),
        ("/api/v1/items?limit=1", lambda body: "" if isinstance(body.get("items"), list) else "lists no items"),
        # The broadcaster's, by the balancer's rules.
        ("/stats/items/deploy-check", lambda body: "" if "subscribers" in body else "counts no viewers"),
    )
    for path, wrong in checks:
        try:
            body = _asked(url + path)
            said = wrong(body) if isinstance(body, dict) else "does not answer with an object"
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code} {error.read(200).decode(errors='replace')}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
        if said:
            yield f"{path}: {said}"


def verify(url: str, *, within_s: float, looks_every_s: float, between: Callable[[], None]) -> None:
    """Wait until everything has answered three times in a row. ``between`` is called before each round, and may raise.

    Raises:
        Unverified: it did not within ``within_s`` seconds; the text has what was wrong last.
    """
    deadline_s = time.monotonic() + within_s
    good = 0
    while True:
        between()
        found = list(problems(url))
        good = 0 if found else good + 1
        if good == _IN_A_ROW:
            return
        if time.monotonic() > deadline_s:
            last = found or [f"only {good} good rounds in a row"]
            raise Unverified(f"{url} does not answer as it should:" + "".join(f"\n    {line}" for line in last))
        time.sleep(looks_every_s)


def _asked(address: str) -> Any:
    """The answer to a GET. ``address`` begins with a checked URL, so that no file can be read."""
    request = urllib.request.Request(address, headers={"Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        return json.loads(answer.read(_ANSWER_BYTES_MAX))
