"""What a run of the read cache's benchmark tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheResult:
    """Gets per second, per second of our processes' CPU time, and percentiles in milliseconds."""

    rate: float
    per_core: float
    p50_ms: float
    p99_ms: float
