"""Fixtures for every test.

`servers`: Redis, NATS and PostgreSQL (migrated), shared by the whole run.
`redis_url`, `nats_url`, `postgres_url`: where those servers are. Redis is empty when a file begins; give buckets,
streams and databases names that no other file has.
`start_stack`: starts stacks of one's own, services and all, for tests that kill things or count everything.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis import Redis
from xdist.remote import Producer

from infrastructure.local.stack import Stack
from tests import distribution, searching
from tests.compiling import compile_tests
from tests.crowds.http_clients import read_authorities_once
from tests.stack import StackFactory, end_stacks_of_killed_runs, remove_template, running_stack

# Here, since the decorators of the property tests take the profile that is in force when they are imported.
searching.load()
read_authorities_once()
# Until all tests are imported: the objects that they make stay, so collections would look through them in vain.
gc.disable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    distribution.sort(items, config.rootpath)


def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Before the processes start that run tests."""
    compile_tests(Path(argument) for argument in config.args if Path(argument).is_dir())


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> distribution.Scheduling | None:
    return distribution.Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """Imports stay: without them a collection takes milliseconds."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        remove_template()


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Collect what the file's tests left open: its warning would come later, during a test that has no part in it."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def clean_machine() -> None:
    """Ends what killed test runs have left running."""
    end_stacks_of_killed_runs()


@pytest.fixture(scope="session")
def servers(clean_machine: None) -> Iterator[Stack]:
    """Running servers without services, for the whole run."""
    with running_stack(services=()) as stack:
        yield stack


@pytest.fixture(scope="module")
def redis_url(servers: Stack) -> str:
    """Empty when a file begins: two files may use the same ids."""
    with Redis.from_url(servers.urls.redis_url) as redis:
        redis.flushall()
    return servers.urls.redis_url


@pytest.fixture(scope="session")
def nats_url(servers: Stack) -> str:
    return servers.urls.nats_url


@pytest.fixture(scope="session")
def postgres_url(servers: Stack) -> str:
    return servers.urls.postgres_url


@pytest_asyncio.fixture
async def start_stack(clean_machine: None) -> AsyncIterator[StackFactory]:
    """`stack = await start_stack(services=…, env=…)`; stopped when the test ends, however it ends."""
    factory = StackFactory()
    yield factory
    await factory.close()
