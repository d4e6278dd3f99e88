"""Percentiles of samples."""

from __future__ import annotations

from collections.abc import Iterable


def percentiles_ms(seconds: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and the maximum in milliseconds; empty where there are no samples."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in _SHARES.items()}
    return {name: value * 1e3 for name, value in at.items()} | {"max": ordered[-1] * 1e3}


_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
