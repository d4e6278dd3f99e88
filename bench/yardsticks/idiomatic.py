"""The yardstick: the gateway as a FastAPI tutorial would have it.

A pydantic body, a response model, dependency injection, and one awaited EVALSHA per request through redis-py's client.
The script does less than ours: it compares, stores the price and counts; no increments, no idempotency, no outbox.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from bench.yardsticks.serve import serve

_SCRIPT = """
local price = tonumber(redis.call('HGET', KEYS[1], 'price') or '0')
local amount = tonumber(ARGV[2])
if amount <= price then return {0, price, 0} end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HSET', KEYS[1], 'price', ARGV[2], 'leader', ARGV[1])
return {1, amount, seq}
"""


class BidIn(BaseModel):
    """The body of a bid."""

    user_id: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")
    amount: Decimal = Field(gt=0, decimal_places=2, max_digits=15)


class BidOut(BaseModel):
    """The answer to a bid."""

    success: bool
    message: str
    current_bid: Decimal
    your_bid: Decimal
    is_highest: bool
    seq: int


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"], protocol=2)
    app.state.script = app.state.redis.register_script(_SCRIPT)
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=_lifespan)


def _script(request: Request) -> Any:
    return request.app.state.script


@app.post("/api/v1/items/{item_id}/bid", response_model=BidOut, status_code=201)
async def place_bid(
    item_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")],
    bid: BidIn,
    response: Response,
    script: Annotated[Any, Depends(_script)],
) -> BidOut:
    """Decide one bid with one round trip."""
    minor = int(bid.amount * 100)
    accepted, price, seq = await script(keys=[f"idiomatic:{item_id}"], args=[bid.user_id, minor])
    if not accepted:
        response.status_code = 200
    return BidOut(
        success=bool(accepted),
        message="Bid accepted" if accepted else "Too low",
        current_bid=Decimal(price) / 100,
        your_bid=bid.amount,
        is_highest=bool(accepted),
        seq=seq,
    )


def main() -> None:
    """Serve on GATEWAY_PORT with the gateway's own server options."""
    serve(app, lifespan="on")


if __name__ == "__main__":
    main()
