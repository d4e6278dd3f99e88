"""PostgreSQL through asyncpg: a small pool with bounded waits."""

from __future__ import annotations

import asyncpg


async def open_postgres(url: str, *, name: str, connections_max: int = 8, timeout_s: float = 10.0) -> asyncpg.Pool:
    """A pool that connects on first use, so that a service starts while PostgreSQL is away.

    Args:
        url: ``postgresql://user@host:port/database``.
        name: ``application_name``, shown in ``pg_stat_activity``.
        connections_max: upper bound of the pool.
        timeout_s: for connecting and for each command.
    """
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=connections_max,
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings={"application_name": name},
    )
