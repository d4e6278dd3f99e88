"""A service's presence at AWS while it runs: registered in Cloud Map, its metrics in CloudWatch.

Each part is used only where the environment names it, and neither is ever waited for: a service works without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from shared.aws import discovery
from shared.aws.clients import AwsError, open_cloud_map, open_cloudwatch
from shared.aws.cloudwatch import Read, Reporter
from shared.aws.settings import AwsSettings
from shared.pacing.backoff import Backoff

logger = logging.getLogger(__name__)

_RETRY_MOST_S: Final = 60.0
_STOP_S: Final = 6.0


@asynccontextmanager
async def presence(
    service: str, port: int, read_metrics: Read, settings: AwsSettings | None = None
) -> AsyncIterator[None]:
    """Be present while inside; at the end the last metrics are sent and the registration is taken back.

    Args:
        service: the name of the service, such as ``api_gateway``.
        port: where others reach it.
        read_metrics: the metrics of this moment; must not raise.
        settings: read from the environment where they are not given.

    Raises:
        AwsError: AWS is to be used, and boto3 is missing or not configured. An AWS that does not answer raises nothing.
    """
    settings = settings or AwsSettings()
    endpoint_url = settings.aws_endpoint_url or None
    work: list[Coroutine[Any, Any, None]] = []
    if settings.metrics_cloudwatch_namespace:
        reporter = Reporter(
            open_cloudwatch(endpoint_url=endpoint_url),
            namespace=settings.metrics_cloudwatch_namespace,
            service=service,
            read=read_metrics,
            interval_s=settings.metrics_cloudwatch_interval_s,
        )
        work.append(reporter.run())
    if settings.cloud_map_service_id:
        instance = discovery.Instance(
            address=settings.cloud_map_address or socket.gethostbyname(socket.gethostname()),
            port=port,
            instance_id=f"{service}-{uuid.uuid4().hex[:16]}",
        )
        client = open_cloud_map(endpoint_url=endpoint_url)
        work.append(_registered(client, settings.cloud_map_service_id, instance))
    tasks = [asyncio.create_task(each, name="presence") for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_S)


async def _registered(client: Any, service_id: str, instance: discovery.Instance) -> None:
    """Register, trying until it succeeds; when cancelled, deregister."""
    backoff = Backoff(first_s=1.0, most_s=_RETRY_MOST_S)
    asked = _asked(client, service_id, instance)
    try:
        while True:
            try:
                await asyncio.shield(asked)
                break
            except AwsError as error:
                logger.warning("not registered yet: %s", error)
                await asyncio.sleep(backoff.failed())
                asked = _asked(client, service_id, instance)
        logger.info("registered at %s as %s:%d", service_id, instance.address, instance.port)
        await asyncio.Event().wait()
    finally:
        # The call goes on in its thread, so AWS may register the instance after this moment: wait for its answer first.
        # A call that failed may have registered it, too.
        with contextlib.suppress(AwsError):
            await asked
        with contextlib.suppress(AwsError):
            await asyncio.to_thread(discovery.deregister, client, service_id, instance.instance_id)


def _asked(client: Any, service_id: str, instance: discovery.Instance) -> asyncio.Task[None]:
    return asyncio.create_task(asyncio.to_thread(discovery.register, client, service_id, instance))
