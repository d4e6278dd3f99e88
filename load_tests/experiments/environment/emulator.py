"""An emulator of AWS: moto's server in this process, or one that runs already (LocalStack, MiniStack), by its URL."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2 as httpx
from typing_extensions import override

from infrastructure.local.servers.ports import HOST, free_ports
from load_tests.experiments.common.guard import Refused
from load_tests.experiments.environment.aws import AwsDeployment, Client, boto_client
from load_tests.experiments.environment.properties import CannotDo

_CLUSTER: Final = "bidding-experiment"
_SERVICE: Final = "api-gateway"
_LOG_GROUP: Final = f"/ecs/{_CLUSTER}/{_SERVICE}"
_METRICS: Final = "Bidding/experiment"


class _Answers(AwsDeployment):
    """The answers of an emulator that runs no task, so it cannot do what needs tasks."""

    @override
    async def deployment_s(self) -> float:
        """Nothing is deployed."""
        await self._require_tasks()
        return await super().deployment_s()

    @override
    async def scaling_s(self) -> float:
        """Nothing is started."""
        await self._require_tasks()
        return await super().scaling_s()

    @override
    async def tasks(self) -> float:
        """Nothing runs."""
        await self._require_tasks()
        return await super().tasks()

    async def _require_tasks(self) -> None:
        state = await self._state()
        if state["desiredCount"] and not state["runningCount"]:
            raise CannotDo("the emulator answers for ECS and runs no task: its times would be those of an API")


class EmulatorBackend:
    """A cluster with one service, made in the emulator, and gone with it or deleted afterwards."""

    def __init__(self, endpoint_url: str = "") -> None:
        self._endpoint_url = endpoint_url
        self.label = f"emulator at {endpoint_url}" if endpoint_url else "moto's server, an emulator of the API of AWS"
        self.notes: tuple[str, ...] = (
            "An emulator: it answers as AWS does, on this machine. Its times say nothing of AWS.",
        )

    @contextlib.asynccontextmanager
    async def deployed(self) -> AsyncIterator[AwsDeployment]:
        """Make what is asked about."""
        async with self._server() as endpoint_url:
            client = boto_client(endpoint_url)
            namespace_id, service_id = await asyncio.to_thread(_make, client)
            try:
                yield _Answers(
                    client,
                    cluster=_CLUSTER,
                    service=_SERVICE,
                    namespace=_CLUSTER,
                    discovered=_SERVICE,
                    log_group=_LOG_GROUP,
                    metrics_namespace=_METRICS,
                    looks_every_s=0.1,
                )
            finally:
                await asyncio.to_thread(_unmake, client, namespace_id, service_id)

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[str]:
        if self._endpoint_url:
            yield self._endpoint_url
            return
        try:
            moto: Any = importlib.import_module("moto.server")
        except ImportError as error:
            raise Refused(
                "the emulator is moto, which `make install-dev` brings; --emulator-url names another"
            ) from error
        (port,) = free_ports(1)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = moto.ThreadedMotoServer(HOST, port, verbose=False)
        await asyncio.to_thread(server.start)
        url = f"http://{HOST}:{port}"
        try:
            # moto keeps its state in its module, and so beyond the server: the repetition before would count too.
            async with httpx.AsyncClient(trust_env=False) as client:
                (await client.post(f"{url}/moto-api/reset")).raise_for_status()
            yield url
        finally:
            await asyncio.to_thread(server.stop)


def _make(client: Client) -> tuple[str, str]:
    ecs, discovery, logs, metrics = (client(name) for name in ("ecs", "servicediscovery", "logs", "cloudwatch"))
    ecs.create_cluster(clusterName=_CLUSTER)
    ecs.register_task_definition(
        family=_SERVICE, containerDefinitions=[{"name": "main", "image": "bidding-platform:local", "memory": 512}]
    )
    ecs.create_service(cluster=_CLUSTER, serviceName=_SERVICE, taskDefinition=_SERVICE, desiredCount=3)
    discovery.create_http_namespace(Name=_CLUSTER)
    namespace_id = discovery.list_namespaces()["Namespaces"][0]["Id"]
    service_id = discovery.create_service(Name=_SERVICE, NamespaceId=namespace_id)["Service"]["Id"]
    discovery.register_instance(ServiceId=service_id, InstanceId="one", Attributes={"AWS_INSTANCE_IPV4": HOST})
    logs.create_log_group(logGroupName=_LOG_GROUP)
    logs.create_log_stream(logGroupName=_LOG_GROUP, logStreamName="one")
    metrics.put_metric_data(Namespace=_METRICS, MetricData=[{"MetricName": "BidsDecided", "Value": 1.0}])
    return str(namespace_id), str(service_id)


def _unmake(client: Client, namespace_id: str, service_id: str) -> None:
    ecs, discovery, logs = (client(name) for name in ("ecs", "servicediscovery", "logs"))
    ecs.update_service(cluster=_CLUSTER, service=_SERVICE, desiredCount=0)
    ecs.delete_service(cluster=_CLUSTER, service=_SERVICE, force=True)
    ecs.delete_cluster(cluster=_CLUSTER)
    discovery.deregister_instance(ServiceId=service_id, InstanceId="one")
    discovery.delete_service(Id=service_id)
    discovery.delete_namespace(Id=namespace_id)
    logs.delete_log_group(logGroupName=_LOG_GROUP)
