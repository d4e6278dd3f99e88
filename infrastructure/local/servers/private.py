"""The private servers of a stack together: how each is run, and where its owner and each account reach it.

Services log in as themselves and may do what `shared/permissions` says. The owner of the machine needs no password,
unless the servers are closed (``CLOSED_SERVERS``): then nobody gets in without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg

from infrastructure.local.errors import StackError
from infrastructure.local.feed_secret import servers_secret
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers import postgres
from infrastructure.local.servers.logins import SCRAM_ITERATIONS, ServerLogins
from infrastructure.local.servers.ports import Ports
from infrastructure.local.servers.redis_and_nats import (
    AppendFsync,
    RedisAccess,
    nats_spec,
    nats_url,
    redis_spec,
    redis_url,
)
from infrastructure.local.servers.valkey_cluster import ValkeyCluster
from shared.permissions.accounts import Account
from shared.permissions.nats_users import users_of_nats
from shared.permissions.postgres_roles import make_roles, set_login
from shared.permissions.redis_users import users_of_redis
from shared.server_urls import credentials_of, password_of, with_credentials

CLOSED_SERVERS: Final = "CLOSED_SERVERS"
"""The variable that closes the servers: then nobody gets in without a password."""
_LET_IN_TIMEOUT_S: Final = 30.0


def are_closed(environment: Mapping[str, str]) -> bool:
    """Whether nobody is to get in without a password.

    Raises:
        StackError: the variable has another value than true, false, 1 or 0.
    """
    value = environment.get(CLOSED_SERVERS, "").strip().lower()
    if value not in ("", "0", "1", "false", "true"):
        raise StackError(f"{CLOSED_SERVERS} must be true or false, not {value!r}.")
    return value in ("1", "true")


class PrivateServers:
    """Redis, or a cluster of it, NATS and PostgreSQL of one data directory."""

    def __init__(
        self, data_dir: Path, ports: Ports, cluster: ValkeyCluster | None, appendfsync: AppendFsync, *, closed: bool
    ) -> None:
        self._data_dir = data_dir
        self._ports = ports
        self._cluster = cluster
        self._appendfsync = appendfsync
        self._is_closed = closed
        self._logins = ServerLogins(partial(servers_secret, data_dir))
        self._addresses = {
            "redis": redis_url(ports.redis) if cluster is None else cluster.url,
            "nats": nats_url(ports.nats),
            "postgres": postgres.postgres_url(ports.postgres),
        }

    def url(self, server: str) -> str:
        """Where its owner reaches a server: `redis`, `nats` or `postgres`."""
        address = self._addresses[server]
        if not self._is_closed:
            return address
        owner = self._logins.owner(server)
        # The database has an owner of its own.
        return with_credentials(address, password=owner.passwords[0]) if server == "postgres" else owner.at(address)

    def url_of(self, server: str, account: Account) -> str:
        """Where an account reaches a server."""
        return self._logins.login(server, account).at(self._addresses[server])

    def spec(self, name: str) -> ProcessSpec:
        """How to run a server. Makes missing folders and files, which may take a second or two."""
        makers: dict[str, Callable[[], ProcessSpec]] = {
            "redis": lambda: redis_spec(
                self._data_dir, self._ports.redis, os.environ, self._appendfsync, access=self.redis_access
            ),
            "nats": lambda: nats_spec(self._data_dir, self._ports, os.environ, users=self._nats_users()),
            "postgres": lambda: postgres.postgres_spec(
                self._data_dir, self._ports, os.environ, password=password_of(self.url("postgres"))
            ),
        }
        if self._cluster is not None and name in self._cluster.names:
            return self._cluster.spec(name, self._data_dir, os.environ, self._appendfsync, self.redis_access)
        return makers[name]()

    async def let_in(self) -> None:
        """Give the accounts their logins at the running PostgreSQL, and their rights if the tables are there.

        Raises:
            StackError: it cannot be asked.
        """
        statements = [make_roles()]
        for account, logins in self._logins.of("postgres").items():
            login = logins[0]
            statements.append(set_login(account, login.user, login.passwords[0], iterations=SCRAM_ITERATIONS))
        try:
            connection = await asyncpg.connect(
                self.url("postgres"), timeout=_LET_IN_TIMEOUT_S, command_timeout=_LET_IN_TIMEOUT_S
            )
            try:
                await connection.execute("\n".join(statements))
            finally:
                connection.terminate()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise StackError(f"Could not give the services their logins at PostgreSQL: {error}") from error

    @property
    def redis_access(self) -> RedisAccess:
        """Who gets into each Redis."""
        return RedisAccess(self._redis_users(), credentials_of(self.url("redis")))

    def _redis_users(self) -> str:
        owners = [self._logins.owner("redis")] if self._is_closed else []
        return users_of_redis(self._logins.of("redis"), open_to_all=not self._is_closed, owners=owners)

    def _nats_users(self) -> str:
        owners = [self._logins.owner("nats")] if self._is_closed else []
        return users_of_nats(self._logins.of("nats"), open_to_all=not self._is_closed, owners=owners)
