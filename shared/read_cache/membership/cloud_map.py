"""Nodes as Cloud Map knows them. Nothing is agreed there: each process sees changes when it looks.

Two processes may see different lists for some seconds. Every call carries the fingerprint of its ring, so what they
ask each other in that time costs loads, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from typing_extensions import override

from shared.aws.clients import AwsError
from shared.aws.discovery import discover
from shared.pacing.backoff import set_within
from shared.read_cache.membership.clock import now_s
from shared.read_cache.membership.view import Relying, View
from shared.read_cache.ring import NODES_MAX, Node, Ring

logger = logging.getLogger(__name__)

LOOK_S: Final = 2.0
VALID_S: Final = 30.0
_SOONEST_S: Final = 0.5


class CloudMapMembership(Relying):
    """The instances of one service. A node registers itself elsewhere (:mod:`shared.aws.presence`, or ECS)."""

    def __init__(
        self,
        client: Any,
        namespace: str,
        service: str,
        *,
        address: str | None = None,
        look_s: float = LOOK_S,
        valid_s: float = VALID_S,
    ) -> None:
        """
        Args:
            client: boto3's for Cloud Map; it blocks, and is called in a thread.
            address: ``host:port`` of this process' node, by which it finds itself in the list; None where it is none.
            look_s: seconds between two looks.
            valid_s: how long a list is relied on when Cloud Map does not answer any more.
        """
        super().__init__()
        self._client = client
        self._namespace = namespace
        self._service = service
        self._address = address
        self._look_s = look_s
        self._valid_s = valid_s
        self._wake = asyncio.Event()
        self._ring = Ring()

    @override
    def suspect(self, epoch: int) -> None:
        self._wake.set()

    @override
    async def newest(self) -> View | None:
        try:
            await self._look()
        except AwsError as error:
            logger.warning("the list of cache nodes: %s", error)
        return self.current()

    @override
    async def run(self) -> None:
        failing = False
        while True:
            try:
                await self._look()
                failing = False
            except AwsError as error:
                if not failing:
                    logger.warning("the list of cache nodes: %s", error)
                failing = True
            # A bound on the rate of looks, however often a peer is suspected.
            await asyncio.sleep(min(_SOONEST_S, self._look_s))
            await set_within(self._wake, max(0.0, self._look_s - _SOONEST_S))
            self._wake.clear()

    async def _look(self) -> None:
        began_s = now_s()
        instances = await asyncio.to_thread(discover, self._client, self._namespace, self._service)
        nodes = [Node(each.instance_id, f"{each.address}:{each.port}") for each in instances[:NODES_MAX]]
        ring = Ring(nodes)
        if ring.fingerprint != self._ring.fingerprint:
            logger.info("cache nodes: %s", ", ".join(node.name for node in ring.nodes) or "none")
            self._ring = ring
        here = next((node.name for node in ring.nodes if node.address == self._address), None)
        self._reliance.renew(View(1, self._ring, here), began_s + self._valid_s)
