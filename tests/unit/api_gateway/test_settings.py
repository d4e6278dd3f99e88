from __future__ import annotations

import pytest
from pydantic import ValidationError

from api_gateway.settings import Settings


def test_a_wait_for_replicas_must_end_before_redis_is_given_up() -> None:
    """Redis answers WAIT when its time is up; a client that gives up before never learns the outcome of any bid."""
    with pytest.raises(ValidationError, match="BID_ACK_TIMEOUT_MS"):
        Settings(bid_ack="replica", bid_ack_timeout_ms=5_000, redis_timeout_ms=5_000)
    Settings(bid_ack="log", bid_ack_timeout_ms=5_000, redis_timeout_ms=5_000)


def test_a_port_of_its_own_is_another_than_the_one_that_is_shared() -> None:
    with pytest.raises(ValidationError, match="GATEWAY_OWN_PORT must be another port"):
        Settings(gateway_port=8080, gateway_own_port=8080, gateway_reuse_port=True)
    Settings(gateway_port=8080, gateway_own_port=0)
