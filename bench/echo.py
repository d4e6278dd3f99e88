"""The limit: a bare ASGI application under the same server, which reads the body and answers a constant of a bid's
size."""

from __future__ import annotations

import os

import uvicorn
from starlette.types import Receive, Scope, Send

_BODY = (
    b'{"success":true,"message":"Bid accepted","current_bid":12.50,"your_bid":12.50,"is_highest":true,'
    b'"event_id":"bench-0000:1:000001","bid_id":"5417fcbfe3ade7601c155dda","seq":100001,"min_next_bid":12.51,'
    b'"reserve_met":true}'
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo: 201 for everything."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        continue
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


def main() -> None:
    """Serve on GATEWAY_PORT with the gateway's own server options."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["GATEWAY_PORT"]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=4_096,
    )


if __name__ == "__main__":
    main()
