"""What tells the servers of the compose stack who may do what: it is up to date, and the servers take it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from redis.exceptions import AuthenticationError, NoPermissionError

from infrastructure.docker.permissions import FOLDER, files, password_setting
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.binaries import find_nats, find_redis
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.servers.redis_and_nats import plain_environment
from shared.clients.nats import NatsLink, open_nats
from shared.clients.redis import open_redis
from shared.permissions.accounts import Account
from tests.programs import accepts, running_server

pytestmark = pytest.mark.integration

STACK: dict[str, Any] = yaml.safe_load((FOLDER.parents[1] / "docker-compose.localstack.yml").read_text())
SERVICES: dict[str, Any] = STACK["services"]
# A digit first: what NATS could take for a number.
PASSWORDS = {password_setting(account): f"1{account.value}" for account in Account}


def server(folder: Path, argv: tuple[str, ...], port: int, env: Mapping[str, str]) -> ProcessSpec:
    return ProcessSpec(
        name="server",
        argv=argv,
        env={**plain_environment(os.environ), **env},
        log=folder / "server.log",
        ready=accepts(port),
        address=f"127.0.0.1:{port}",
    )


def test_the_files_follow_from_the_lists() -> None:
    for path, text in files().items():
        assert path.read_text() == text, f"{path}: run python -m infrastructure.docker.permissions"


@pytest.mark.parametrize(
    ("service", "account"),
    [
        ("api_gateway", Account.GATEWAY),
        ("broadcast_service", Account.BROADCASTER),
        ("archival_worker", Account.ARCHIVER),
        ("cache_node", Account.CACHE),
        ("cache_front_end", Account.CACHE),
        ("operator", Account.OPERATOR),
    ],
)
def test_every_service_logs_in_as_itself(service: str, account: Account) -> None:
    environment = SERVICES[service]["environment"]
    setting = password_setting(account)
    for each in ("NATS", "POSTGRES", *(() if account is Account.CACHE else ("REDIS",))):
        assert environment[f"{each}_USER"] == account.value
        assert environment[f"{each}_PASSWORD"] == f"${{{setting}:-local-{account.value}}}"
    assert ("REDIS_PASSWORD" in environment) == (account is not Account.CACHE)
    assert SERVICES["migrate"]["environment"][setting] == f"${{{setting}:-local-{account.value}}}"


def test_each_redis_is_handed_both_passwords_of_every_account_it_has() -> None:
    """Both: a Redis that starts again while one is being replaced by the other has to know the two."""
    wanted = {
        f"{password_setting(account)}{suffix}": f"${{{password_setting(account)}{suffix}:-{default}}}"
        for account in Account
        if account is not Account.CACHE
        for suffix, default in (("", f"local-{account.value}"), ("_NEXT", ""))
    }
    nodes = yaml.safe_load((FOLDER.parents[1] / "docker-compose.cluster.yml").read_text())["services"]
    # The cluster's first node is the container of the single Redis, with something more.
    for service in (SERVICES["redis"], nodes["redis-2"], nodes["redis-3"]):
        environment = service["environment"]
        assert {name: value for name, value in environment.items() if "_PASSWORD" in name} == wanted


@asynccontextmanager
async def nats_with_the_file(folder: Path) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    shutil.copy(FOLDER / "nats-users.conf", folder)
    config = folder / "nats.conf"
    config.write_text(f'host: "127.0.0.1"\nport: {port}\ninclude "nats-users.conf"\n')
    # In quotes, as the compose file hands them in.
    env = {f"NATS_{name}": f'"{password}"' for name, password in PASSWORDS.items()} | {"NATS_PASSWORD": '"0"'}
    async with running_server(server(folder, (str(find_nats(os.environ)), "-c", str(config)), port, env)):
        yield port


async def test_nats_takes_its_file(tmp_path: Path) -> None:
    async with nats_with_the_file(tmp_path) as port:
        for user, password in (("gateway", "1gateway"), ("cache", "1cache"), ("bidding", "0")):
            async with asyncio.timeout(30):
                client = await open_nats(f"nats://{user}:{password}@127.0.0.1:{port}", name="test")
            await client.close()
        for login in ("gateway:1cache@", ""):
            link = NatsLink(f"nats://{login}127.0.0.1:{port}", name="test", timeout_s=1)
            with pytest.raises(ConnectionError):
                await link.connected()
            await link.close()


@asynccontextmanager
async def redis_by_the_script(folder: Path, env: Mapping[str, str]) -> AsyncIterator[str]:
    """What the container of Redis runs. Yields its host and port."""
    (port,) = free_ports(1)
    (folder / "bin").mkdir()
    (folder / "bin" / "valkey-server").symlink_to(find_redis(os.environ))
    (folder / "redis.conf").write_text(f'bind 127.0.0.1\nport {port}\ndir {folder}\nsave ""\n')
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "REDIS_CONFIG": str(folder / "redis.conf"),
        "REDIS_DATA": str(folder),
        "REDIS_RUN": str(folder),
        "REDIS_MAXMEMORY": "0",
        "REDIS_USERS": str(FOLDER / "redis-users.acl"),
        "REDISCLI_AUTH": "owner of all",
        **env,
    }
    async with running_server(server(folder, ("sh", str(FOLDER / "redis-start.sh")), port, env)):
        yield f"127.0.0.1:{port}"


async def test_redis_takes_its_file_and_two_passwords(tmp_path: Path) -> None:
    passwords = {name: text for name, text in PASSWORDS.items() if name != "OPERATOR_PASSWORD"}
    more = {"GATEWAY_PASSWORD_NEXT": "next$`'\"\\"}
    async with redis_by_the_script(tmp_path, passwords | more) as address:
        for password in ("1gateway", "next%24%60%27%22%5C"):
            async with open_redis(f"redis://gateway:{password}@{address}/0") as redis:
                await redis.set("{s00}:lease", "x")
                with pytest.raises(NoPermissionError):
                    await redis.flushall()
        async with open_redis(f"redis://:owner%20of%20all@{address}/0") as redis:
            assert await redis.config_get("port")
        for login in ("gateway:1archiver", "operator:1operator", "operator:", "broadcaster:"):
            async with open_redis(f"redis://{login}@{address}/0") as redis:
                with pytest.raises(AuthenticationError):
                    await redis.ping()
    assert "1gateway" not in (tmp_path / "redis-users.acl").read_text()


async def test_redis_without_the_file_has_one_password(tmp_path: Path) -> None:
    async with redis_by_the_script(tmp_path, {"REDIS_USERS": str(tmp_path / "no-such-file")}) as address:
        async with open_redis(f"redis://:owner%20of%20all@{address}/0") as redis:
            assert await redis.ping()
        async with open_redis(f"redis://{address}/0") as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()
