"""Cloud Map: a service tells where it is, and finds others. Blocking calls, to be run in a thread.

ECS registers the tasks of a service that asks for it. This is for what ECS does not know, and for finding peers by
address.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from shared.aws.clients import AwsError, open_cloud_map, translated

logger = logging.getLogger(__name__)

_INSTANCES_MAX: Final = 100
_SUFFIX: Final = "+cloudmap"
_DEFAULT_PORT: Final = 4222


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """One registered instance."""

    address: str
    port: int
    instance_id: str


def register(client: Any, service_id: str, instance: Instance) -> None:
    """Register the instance, or renew what is registered under its id. Takes effect within seconds.

    Args:
        service_id: of Cloud Map, such as ``srv-…``.

    Raises:
        AwsError: Cloud Map cannot be asked, or refuses.
    """
    attributes = {"AWS_INSTANCE_IPV4": instance.address, "AWS_INSTANCE_PORT": str(instance.port)}
    with translated(f"Cloud Map, register at {service_id}"):
        client.register_instance(ServiceId=service_id, InstanceId=instance.instance_id, Attributes=attributes)


def deregister(client: Any, service_id: str, instance_id: str) -> None:
    """Take the instance out.

    Raises:
        AwsError: Cloud Map cannot be asked, or does not know it.
    """
    with translated(f"Cloud Map, deregister at {service_id}"):
        client.deregister_instance(ServiceId=service_id, InstanceId=instance_id)


def discover(client: Any, namespace: str, service: str) -> list[Instance]:
    """The healthy instances, or all if none is healthy; in a stable order, at most 100.

    Raises:
        AwsError: Cloud Map cannot be asked, or does not know the service.
    """
    with translated(f"Cloud Map, {service} in {namespace}"):
        answer = client.discover_instances(
            NamespaceName=namespace,
            ServiceName=service,
            MaxResults=_INSTANCES_MAX,
            HealthStatus="HEALTHY_OR_ELSE_ALL",
        )
        found = [
            Instance(
                address=entry["Attributes"]["AWS_INSTANCE_IPV4"],
                port=int(entry["Attributes"].get("AWS_INSTANCE_PORT", 0)),
                instance_id=entry["InstanceId"],
            )
            for entry in answer["Instances"]
        ]
    return sorted(found)


def find_servers(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with a ``NATS_URL`` of the form ``nats+cloudmap://namespace/service`` looked up.

    ``tls+cloudmap://`` gives ``tls://`` addresses. Credentials in the URL stay. The look-up happens once, before the
    start; afterwards NATS itself tells its clients of servers that join.

    Raises:
        AwsError: Cloud Map cannot be asked, or knows no instance.
    """
    result = dict(environment)
    url = urlsplit(result.get("NATS_URL", ""))
    if not url.scheme.endswith(_SUFFIX):
        return result
    credentials, at, namespace = url.netloc.rpartition("@")
    service = url.path.strip("/")
    instances = discover(open_cloud_map(endpoint_url=result.get("AWS_ENDPOINT_URL") or None), namespace, service)
    if not instances:
        raise AwsError(f"Cloud Map has no instance of {service} in {namespace}, which NATS_URL names")
    scheme = url.scheme.removesuffix(_SUFFIX)
    result["NATS_URL"] = ",".join(
        f"{scheme}://{credentials}{at}{instance.address}:{instance.port or _DEFAULT_PORT}" for instance in instances
    )
    return result
