"""What an error of Redis says about the bids of a call, as the client hands it over."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided, _translated
from api_gateway.engine.item_scripts import ScriptLimits
from shared.domain.errors import OutcomeUnknown, Unavailable

_FULL = "OOM command not allowed when used memory > 'maxmemory'."
_FOLLOWS = "READONLY You can't write against a read only replica."


def parsed(line: str) -> ResponseError:
    error = BaseParser.parse_error(line)  # type: ignore[no-untyped-call]
    assert isinstance(error, ResponseError)
    return error


@pytest.mark.parametrize(
    "line",
    [
        _FULL,
        f"{_FULL} script: on @user_script:6.",  # Redis 7 and Valkey
        f"ERR Error running script (call to f_1): @user_script:6: @user_script: 6: -{_FULL}",  # Redis 6.2
        _FOLLOWS,
        f"ERR Error running script (call to f_1): @user_script:6: @user_script: 6: -{_FOLLOWS}",
        "MISCONF Redis is configured to save RDB snapshots, but it is not able to persist on disk.",
        "BUSY Redis is busy running a script.",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
    ],
)
def test_what_redis_refuses_before_a_script_writes_changed_nothing(line: str) -> None:
    error = parsed(line)
    assert isinstance(_translated(error), Unavailable), str(error)


@pytest.mark.parametrize(
    "line", ["ERR user_script:12: attempt to index a nil value", "UNKILLABLE", "ERR something else"]
)
def test_of_any_other_error_nobody_knows_what_was_written(line: str) -> None:
    error = parsed(line)
    assert isinstance(_translated(error), OutcomeUnknown)


class Pool:
    """Makes connections, of which the first answer once with this error."""

    def __init__(self, error: ResponseError) -> None:
        self.connection_pool = self
        self.errors = [error]
        self.made = 0

    def make_connection(self) -> Connection:
        self.made += 1
        return Connection(self)


class Connection:
    """All that is asked on it is decided, unless an error is due."""

    _reader = None

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.is_connected = False

    async def connect(self) -> None:
        self.is_connected = True

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_connected = False

    async def send_packed_command(self, packed: bytes, *, check_health: bool) -> None:
        return

    async def read_response(self, **how: object) -> list[Any]:
        if self._pool.errors:
            raise self._pool.errors.pop()
        return [[0, 1, 1, 1, b"A|one"]]


@pytest.mark.parametrize(("line", "connections"), [(_FOLLOWS, 2), (_FULL, 1)], ids=["a replica", "a full primary"])
async def test_a_connection_to_what_is_a_replica_now_is_not_used_again(line: str, connections: int) -> None:
    """When it becomes the primary again, it may have other data. A new connection is admitted first."""
    pool = Pool(parsed(line))
    scripts = BidScripts(cast(Any, pool), ScriptLimits(), timeout_s=10)
    one = PendingBid("lot", "ann", "one", 5, None, "one", True, PendingVerdict())
    [refused] = await scripts.place([[one]])
    assert isinstance(refused, Unavailable)
    [decided] = await scripts.place([[one]])
    assert isinstance(decided, Decided)
    assert pool.made == connections
