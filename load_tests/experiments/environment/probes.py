"""What is measured in the same way everywhere: requests to a gateway, and series at ``/metrics``."""

from __future__ import annotations

import statistics
import time
from typing import Final

import httpx2 as httpx

REQUESTS: Final = 50
_TIMEOUT_S: Final = 10.0


async def request_ms(url: str) -> float:
    """The median of many ``GET /health`` on one connection, in milliseconds."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        await client.get(f"{url}/health")
        times: list[float] = []
        for _ in range(REQUESTS):
            began_s = time.perf_counter()
            await client.get(f"{url}/health")
            times.append((time.perf_counter() - began_s) * 1_000)
    return statistics.median(times)


async def series_at(urls: list[str]) -> float:
    """How many time series these services tell at ``/metrics``."""
    total = 0
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        for url in urls:
            text = (await client.get(f"{url}/metrics")).text
            total += sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    return float(total)
