"""What an error of Redis says about the bids of a call, as the client hands it over."""

from __future__ import annotations

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from api_gateway.engine.bids.scripts import _translated
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
