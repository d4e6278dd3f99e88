"""PostgreSQL through asyncpg: a small pool with bounded waits."""

from __future__ import annotations

from typing import Any

import asyncpg


async def open_postgres(
    url: str, *, name: str, connections_max: int = 8, timeout_s: float = 10.0, only_looks_up: bool = False
) -> asyncpg.Pool:
    """A pool that connects on first use, so that a service starts while PostgreSQL is away.

    Args:
        url: ``postgresql://user@host:port/database``.
        name: ``application_name``, shown in ``pg_stat_activity``.
        connections_max: upper bound of the pool.
        timeout_s: for connecting and for each command.
        only_looks_up: the owner of the pool asks some forty statements, which find their rows by a key or by a range of
            an index (only the catalogue by price does not), and leaves nothing behind in the session. Then PostgreSQL
            plans each statement once per connection, and connections are not cleaned between two questions. Planning
            and cleaning each take longer than a look-up.
    """
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=connections_max,
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings={"application_name": name}
        | ({"plan_cache_mode": "force_generic_plan"} if only_looks_up else {}),
        reset=_leave if only_looks_up else None,
    )


async def _leave(connection: Any) -> None:
    """In place of the statements that clean a session. A transaction that was left open is rolled back before this."""
