"""The upper limit: a bare ASGI application under the same server, which reads the body and answers a constant of the
size of a bid's answer."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from bench.yardsticks.serve import serve

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
    serve(app, lifespan="off")


if __name__ == "__main__":
    main()
