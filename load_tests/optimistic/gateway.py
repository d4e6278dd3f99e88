"""``python -m load_tests.optimistic.gateway``: a small gateway with the API that the load uses, as bare ASGI.

It reads GATEWAY_PORT, REDIS_URL and DECIDER (``optimistic`` or ``plain-lua``). ``GET /stats`` tells how often bids were
tried again and given up.
"""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec
import uvicorn
from redis.asyncio import BlockingConnectionPool, Redis

from load_tests.optimistic.decide import Decider, Decision, OptimisticDecider, ScriptDecider, key_of

_CONNECTIONS_MAX: Final = 256
"""Connections to Redis. A bid holds one while it is decided; further bids wait for a free one."""
_WAIT_S: Final = 60.0
_ITEMS: Final = "/api/v1/items"


class _Bid(msgspec.Struct):
    user_id: str
    amount: float


class Gateway:
    """An ASGI application."""

    def __init__(self, redis: Redis, decider: Decider) -> None:
        self._redis = redis
        self._decider = decider
        self._decode = msgspec.json.Decoder(_Bid).decode
        self.retries = self.given_up = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, content = await self._answer(scope["method"], scope["path"], body)
        encoded = msgspec.json.encode(content)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(encoded)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path in ("/health", "/ready"):
            return 200, {"status": "healthy"}
        if path == "/stats":
            return 200, {"retries": self.retries, "given_up": self.given_up}
        if method == "POST" and path == _ITEMS:
            return 201, {"id": msgspec.json.decode(body)["id"]}
        item_id, _, action = path.removeprefix(f"{_ITEMS}/").partition("/")
        if method == "POST" and action == "bid":
            bid = self._decode(body)
            return self._told(await self._decider.decide(item_id, bid.user_id, round(bid.amount * 100)))
        if method == "GET" and path.startswith(_ITEMS) and not action:
            return 200, await self._item(item_id)
        return 404, {"code": "NOT_FOUND", "error": "there is no such page"}

    def _told(self, decision: Decision) -> tuple[int, dict[str, Any]]:
        self.retries += decision.retries
        if decision.given_up:
            self.given_up += 1
            return 503, {"code": "CONTENDED", "error": "the bid lost every race and was not placed"}
        prices = {"current_bid": decision.price / 100, "min_next_bid": (decision.price + 1) / 100}
        if not decision.accepted:
            return 200, {"success": False, "code": "TOO_LOW", **prices}
        return 201, {"success": True, "seq": decision.seq, "is_highest": True, **prices}

    async def _item(self, item_id: str) -> dict[str, Any]:
        price, seq, leader = await self._redis.hmget(key_of(item_id), ["price", "seq", "leader"])
        minor, number = int(price or 0), int(seq or 0)
        return {
            "id": item_id,
            "current_bid": minor / 100,
            "min_next_bid": (minor + 1) / 100,
            "highest_bidder_id": leader,
            "bid_count": number,
            "seq": number,
            "epoch": 1,
        }


def main() -> None:
    """Serve until SIGTERM, with the platform's own server options."""
    pool = BlockingConnectionPool.from_url(
        os.environ["REDIS_URL"], max_connections=_CONNECTIONS_MAX, timeout=_WAIT_S, decode_responses=True
    )
    redis = Redis(connection_pool=pool)
    decider: Decider = OptimisticDecider(redis) if os.environ.get("DECIDER") == "optimistic" else ScriptDecider(redis)
    uvicorn.run(
        Gateway(redis, decider),
        host="127.0.0.1",
        port=int(os.environ["GATEWAY_PORT"]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        backlog=4_096,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
