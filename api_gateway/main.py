"""The gateway as a program: its settings, its sockets and its server."""

from __future__ import annotations

import contextlib
import gc
import logging

import uvicorn

from api_gateway.application import build_app
from api_gateway.bid_socket.protocol import BidSocket
from api_gateway.direct import DirectRoad
from api_gateway.hot_path import BID_BYTES_MAX
from api_gateway.routes import images
from api_gateway.settings import Settings
from shared.aliases import AliasSettings
from shared.aws.settings import AwsSettings
from shared.clients.stream_settings import StreamSettings
from shared.http.connection_limits import ConnectionLimits
from shared.http.protocols.direct import direct_protocol
from shared.http.proxies import Proxies
from shared.http.sockets import ListeningServer, sockets_or_exit
from shared.logs import set_up_logging
from shared.read_cache.settings import ReadCacheSettings
from shared.settings import settings_or_exit
from shared.tracing.settings import TracingSettings

SHUTDOWN_S = 20


def main() -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    settings = settings_or_exit(
        Settings, ReadCacheSettings, AwsSettings, AliasSettings, StreamSettings, TracingSettings
    )
    # Most objects of a request die with it; the default threshold would look for cycles among them hundreds of times a
    # second. What is alive now (modules, routes) lives for ever and need not be looked at again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    set_up_logging(settings.log_level, settings.log_format)
    # At INFO it writes two lines for every WebSocket that is asked for.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    road = DirectRoad()
    config = uvicorn.Config(
        build_app(settings),
        host=settings.gateway_host,
        port=settings.gateway_port,
        loop="uvloop",
        http=direct_protocol(
            road.find,
            head_bytes_max=settings.head_bytes_max,
            timeout_s=settings.body_timeout_s,
            answers_silence=True,
            # Only the ASGI application adds the headers that the answer to a page of another origin needs.
            left_headers={b"origin"} if settings.origins else (),
            patient_targets=(images.PATH.encode(),),
            patient_s=images.UPLOAD_S,
            connection_limits=ConnectionLimits(
                settings.gateway_connections_max,
                settings.gateway_connections_per_address_max,
                Proxies(settings.gateway_trusted_proxies),
            ),
        ),
        ws=BidSocket,
        ws_max_size=BID_BYTES_MAX,
        # One task pings all, see BidSockets.run.
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=4_096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    sockets = sockets_or_exit(
        settings.gateway_host,
        settings.gateway_port,
        is_shared=settings.gateway_reuse_port,
        own_port=settings.gateway_own_port,
    )
    server = ListeningServer(config)
    # uvicorn raises the signal again when it is done; Ctrl-C needs no traceback.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets)
