"""How a cache joins its peers, and leaves them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from shared.read_cache.cluster import Cluster
from shared.read_cache.membership.static import StaticMembership, parse_nodes
from shared.read_cache.membership.view import Membership
from shared.read_cache.peers.server import PeerServer
from shared.read_cache.peers.wire import Tls
from shared.read_cache.ring import Node
from shared.read_cache.settings import ReadCacheSettings
from shared.read_cache.warm_up import keep_warm
from shared.supervision import in_background

if TYPE_CHECKING:
    from shared.clients.nats import NatsLink
    from shared.read_cache.cache import ReadCache


@asynccontextmanager
async def joined(
    cache: ReadCache, settings: ReadCacheSettings, *, node: Node | None, nats: NatsLink | None
) -> AsyncIterator[Cluster]:
    """Peers for the cache while inside; see :func:`shared.read_cache.opening.open_read_cache`."""
    membership = _membership_of(settings, node, nats)
    tls = _tls_of(settings)
    cluster = Cluster(
        membership, cache.stats, on_lapse=cache.reset, timeout_s=settings.read_cache_peer_timeout_ms / 1_000, tls=tls
    )
    cache.attach(cluster)
    work = {"cache membership": membership.run}
    server = None
    try:
        if node is not None:
            server = PeerServer(cache, membership, cache, address=node.address, tls=tls)
            await server.start()
            work["cache warm-up"] = partial(keep_warm, cache, cluster)
        async with in_background(work, keeps_state=False):
            yield cluster
    finally:
        if server is not None:
            await server.stop()
        await cluster.close()


def _membership_of(settings: ReadCacheSettings, node: Node | None, nats: NatsLink | None) -> Membership:
    provider = settings.read_cache_membership
    if provider == "static":
        return StaticMembership(parse_nodes(settings.read_cache_nodes), here=node.name if node is not None else None)
    if provider == "cloud_map":
        from shared.aws.clients import open_cloud_map
        from shared.aws.settings import AwsSettings
        from shared.read_cache.membership.cloud_map import CloudMapMembership

        namespace, service = settings.cloud_map
        client = open_cloud_map(endpoint_url=AwsSettings().aws_endpoint_url or None)
        return CloudMapMembership(client, namespace, service, address=node.address if node is not None else None)
    from shared.read_cache.membership.jetstream import JetStreamMembership

    if nats is None:
        raise ValueError("READ_CACHE_MEMBERSHIP=jetstream needs a connection to NATS")
    return JetStreamMembership(nats, node=node, lease_s=settings.read_cache_lease_s, bucket=settings.read_cache_bucket)


def _tls_of(settings: ReadCacheSettings) -> Tls | None:
    return Tls(*settings.read_tls_files()) if any(settings.tls_files) else None
