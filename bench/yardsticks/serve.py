"""The yardsticks run under the gateway's own server options."""

from __future__ import annotations

import os
from typing import Literal

import uvicorn
from starlette.types import ASGIApp


def serve(app: ASGIApp, *, lifespan: Literal["on", "off"]) -> None:
    """Serve ``app`` on GATEWAY_PORT until SIGTERM."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["GATEWAY_PORT"]),
        loop="uvloop",
        http="httptools",
        lifespan=lifespan,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=4_096,
    )
