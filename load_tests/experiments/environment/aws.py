"""ECS, Cloud Map, CloudWatch and its logs: in an account, or in an emulator of their API."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from load_tests.experiments.common.guard import Refused
from load_tests.experiments.environment.probes import request_ms
from load_tests.experiments.environment.properties import CannotDo

Client = Callable[[str], Any]
"""Makes a client of a service of AWS, by its name for boto3."""

_FROM, _TO = 3, 5
_STABLE_S: Final = 900.0
_LOOK_EVERY_S: Final = 2.0
_REGISTERED: Final = "nats-0"
"""A service of infrastructure/terraform that is in Cloud Map; those behind the load balancer are not."""


def boto_client(endpoint_url: str | None = None) -> Client:
    """Clients for an account, or for an emulator at ``endpoint_url``.

    Raises:
        Refused: boto3 is not installed.
    """
    try:
        boto3: Any = importlib.import_module("boto3")
        config: Any = importlib.import_module("botocore.config")
    except ImportError as error:
        raise Refused("AWS needs boto3, which `make install-dev` brings") from error
    given: Mapping[str, Any] = {}
    if endpoint_url:
        given = {
            "endpoint_url": endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": "emulator",
            "aws_secret_access_key": "emulator",
            # Cloud Map's names of hosts begin with "data-", which an emulator's does not.
            "config": config.Config(inject_host_prefix=False),
        }
    return lambda name: boto3.client(name, **given)


class AwsDeployment:
    """A service of ECS that exists. What is changed is changed back.

    ``looks_every_s``: how often ECS is asked whether it is done. ``gateway_url``: what to send requests to, if anything
    answers.
    """

    def __init__(
        self,
        client: Client,
        *,
        cluster: str,
        service: str,
        namespace: str,
        discovered: str,
        log_group: str,
        metrics_namespace: str,
        gateway_url: str = "",
        looks_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._client = client
        self._cluster, self._service = cluster, service
        self._namespace, self._discovered, self._log_group = namespace, discovered, log_group
        self._metrics_namespace = metrics_namespace
        self._gateway_url = gateway_url
        self._looks_every_s = looks_every_s

    async def deployment_s(self) -> float:
        """A new deployment of the service with the same task definition, until ECS calls it complete."""
        began_s = time.monotonic()
        answer = await self._ecs("update_service", forceNewDeployment=True)
        ordered = next((each["id"] for each in answer["service"]["deployments"] if each["status"] == "PRIMARY"), None)
        await self._until(lambda state: [each["id"] for each in state["deployments"]] == [ordered])
        return time.monotonic() - began_s

    async def scaling_s(self) -> float:
        """From three tasks to five, and back to as many as there were."""
        before = (await self._state())["desiredCount"]
        try:
            await self._scale(_FROM)
            began_s = time.monotonic()
            await self._scale(_TO)
            return time.monotonic() - began_s
        finally:
            # A run that is cut off here must not go on costing.
            await self._ecs("update_service", desiredCount=before)

    async def _scale(self, count: int) -> None:
        await self._ecs("update_service", desiredCount=count)
        await self._until(lambda state: state["desiredCount"] == count)

    async def tasks(self) -> float:
        """Tasks of the service that ECS calls running."""
        return float((await self._state())["runningCount"])

    async def discovery_ms(self) -> float:
        """``DiscoverInstances`` of Cloud Map."""
        client = self._client("servicediscovery")
        began_s = time.perf_counter()
        answer = await asyncio.to_thread(
            client.discover_instances, NamespaceName=self._namespace, ServiceName=self._discovered
        )
        took_ms = (time.perf_counter() - began_s) * 1_000
        if not answer["Instances"]:
            raise CannotDo(f"Cloud Map knows no instance of {self._discovered} in {self._namespace}")
        return took_ms

    async def cost_per_hour(self) -> float:
        """Cannot be measured: bills come a day later."""
        raise CannotDo("AWS tells costs a day later; docs/deploy-aws.md has the price list's")

    async def network_ms(self) -> float:
        """Through the load balancer."""
        if not self._gateway_url:
            raise CannotDo("no gateway answers there: --target names one")
        return await request_ms(self._gateway_url)

    async def log_streams(self) -> float:
        """Streams of the log group of the service."""
        pages = self._client("logs").get_paginator("describe_log_streams").paginate(logGroupName=self._log_group)
        return float(await asyncio.to_thread(lambda: sum(len(page["logStreams"]) for page in pages)))

    async def metrics(self) -> float:
        """Series in CloudWatch."""
        pages = self._client("cloudwatch").get_paginator("list_metrics").paginate(Namespace=self._metrics_namespace)
        return float(await asyncio.to_thread(lambda: sum(len(page["Metrics"]) for page in pages)))

    async def _ecs(self, call: str, **more: Any) -> Any:
        client = self._client("ecs")
        return await asyncio.to_thread(getattr(client, call), cluster=self._cluster, service=self._service, **more)

    async def _state(self) -> Mapping[str, Any]:
        client = self._client("ecs")
        answer = await asyncio.to_thread(client.describe_services, cluster=self._cluster, services=[self._service])
        if not answer["services"]:
            raise Refused(f"there is no service {self._service} in the cluster {self._cluster}")
        found: Mapping[str, Any] = answer["services"][0]
        return found

    async def _until(self, is_told: Callable[[Mapping[str, Any]], bool]) -> None:
        """Wait until the service is stable. ``is_told``: whether a state already shows the order; the first may not."""
        deadline_s = time.monotonic() + _STABLE_S
        while True:
            state = await self._state()
            if (
                is_told(state)
                and state["runningCount"] == state["desiredCount"]
                and [each.get("rolloutState", "COMPLETED") for each in state["deployments"]] == ["COMPLETED"]
            ):
                return
            if time.monotonic() > deadline_s:
                raise Refused(f"{self._service} was not stable after {_STABLE_S:.0f} s")
            await asyncio.sleep(self._looks_every_s)


class AwsBackend:
    """What is in an account already, under the names that infrastructure/terraform gives; nothing is created."""

    notes: tuple[str, ...] = (
        "Deployment time is that of a rolling deployment of the gateway; the stack around it stays.",
    )

    def __init__(self, *, cluster: str, service: str, gateway_url: str, client: Client | None = None) -> None:
        self._client = client or boto_client()
        self._cluster, self._service, self._gateway_url = cluster, service, gateway_url
        self.label = f"ECS service {service} in {cluster}"

    @contextlib.asynccontextmanager
    async def deployed(self) -> AsyncIterator[AwsDeployment]:
        """The service as it is."""
        yield AwsDeployment(
            self._client,
            cluster=self._cluster,
            service=self._service,
            namespace=f"{self._cluster}.internal",
            discovered=_REGISTERED,
            log_group=f"/{self._cluster}/{self._service}",
            metrics_namespace=f"Bidding/{self._cluster.rpartition('-')[2]}",
            gateway_url=self._gateway_url,
        )
