"""An environment on AWS that is made up: moto's server holds what is asked and told, a thread does what ECS would do.

moto answers for ECS and runs nothing. Here a scheduler looks at what services should run, and lets them come to it:
after a while, or never, or it takes them back, as the test says.

boto3 and moto are imported when the first world is made: it takes as long as to import all other tests, of which only
one process of a run needs it.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest

from infrastructure.deploy.alarms import ROLLBACK_ALARMS
from infrastructure.local.servers.ports import HOST, free_ports
from tests.integration.aws.aws_world import REGION
from tests.tcp import served_by_thread

ACCOUNT: Final = "123456789012"
NAME: Final = "bidding-dev"
REGISTRY: Final = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
SERVICES: Final = ("nats-0", "archiver", "broadcaster", "gateway")
OLD: Final = "aaaaaaa"
NEW: Final = "bbbbbbb"
_LOOK_S: Final = 0.02


class EcsWorld:
    """Services of `bidding-dev` that run the image OLD; NEW is pushed.

    Attributes:
        broken: services whose new tasks do not come up: ECS takes the deployment back.
        stuck: services whose deployments never end.
        unwell: tags of images with which the platform answers 503.
        migrate_exit: exit code of tasks that run once.
        started: commands of those, by the tag of their image.
    """

    def __init__(self, endpoint: str) -> None:
        self.broken: set[str] = set()
        self.stuck: set[str] = set()
        self.unwell: set[str] = set()
        self.migrate_exit = 0
        self.started: list[str] = []
        self.updates: list[tuple[str, str]] = []
        self._runs: dict[str, str] = {}
        self._seen_tasks: set[str] = set()
        self._ended = threading.Event()
        import boto3
        from moto.ecs.models import ecs_backends

        session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        self._client: Callable[[str], Any] = cache(partial(session.client, endpoint_url=endpoint))
        self.ecs: Any = self._client("ecs")
        self.cloudwatch: Any = self._client("cloudwatch")
        self._backend: Any = ecs_backends[ACCOUNT][REGION]
        self._revision: Callable[[str], Any] = self._backend.describe_task_definition
        self._backend.describe_task_definition = self._active  # type: ignore[method-assign]
        self._make()

    def _make(self) -> None:
        ec2, ecr = self._client("ec2"), self._client("ecr")
        vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        # As Terraform makes it; without, the emulator cannot run a task in it.
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="archiver", Description="-", VpcId=vpc)["GroupId"]
        place = {"subnets": [subnet], "securityGroups": [group], "assignPublicIp": "DISABLED"}
        network = {"awsvpcConfiguration": place}
        for repository, tags in {"bidding": (OLD, NEW), "bidding-nats": ("2.15", "2.16")}.items():
            ecr.create_repository(repositoryName=repository)
            for tag in tags:
                self.push(repository, tag)
        self.ecs.create_cluster(clusterName=NAME)
        for name in (*SERVICES, "one-shot", "operator"):
            self.register(name, OLD)
        for name in SERVICES:
            self.ecs.create_service(
                cluster=NAME,
                serviceName=name,
                taskDefinition=f"{NAME}-{name}",
                desiredCount=2,
                launchType="FARGATE",
                networkConfiguration=network,
            )
        for alarm in ROLLBACK_ALARMS:
            self.ring(alarm, state="OK")
        self._step()

    def _active(self, task_definition_str: str) -> Any:
        """A family's name is its newest revision that is active; the emulator takes one that is not, too."""
        family = task_definition_str.rpartition("/")[2]
        # A copy: the server registers in other threads.
        revisions = dict(self._backend.task_definitions.get(family, {}))
        active = [number for number, each in revisions.items() if each.status == "ACTIVE"]
        return self._revision(f"{family}:{max(active)}" if active else task_definition_str)

    def register(self, name: str, tag: str, **settings: str) -> str:
        """A revision, as Terraform makes one; its ARN."""
        image = f"{REGISTRY}/bidding-nats:2.15" if name.startswith("nats") else f"{REGISTRY}/bidding:{tag}"
        environment = {"BROADCAST_PUBLIC_URL": "wss://auction.example.com"} | settings
        made = self.ecs.register_task_definition(
            family=f"{NAME}-{name}",
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[
                {
                    "name": name,
                    "image": image,
                    "essential": True,
                    # The emulator cannot do without; Fargate can.
                    "memory": 256,
                    "environment": [{"name": key, "value": value} for key, value in environment.items()],
                },
                {"name": "collector", "image": f"{REGISTRY}/bidding-collector:1", "memory": 128, "essential": False},
            ],
        )
        return str(made["taskDefinition"]["taskDefinitionArn"])

    def ring(self, alarm: str, *, state: str = "ALARM") -> None:
        """An alarm of the environment, in this state."""
        self.cloudwatch.put_metric_alarm(
            AlarmName=f"{NAME}-{alarm}",
            MetricName="m",
            Namespace="n",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
            Statistic="Sum",
        )
        self.cloudwatch.set_alarm_state(AlarmName=f"{NAME}-{alarm}", StateValue=state, StateReason="the test says so")

    def push(self, repository: str, tag: str) -> None:
        """An image of this name in the registry."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": tag},
        }
        self._client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest))

    def kept(self) -> set[str]:
        """Tags that images of the platform have."""
        answer = self._client("ecr").list_images(repositoryName="bidding")
        return {each["imageTag"] for each in answer["imageIds"]}

    def container(self, service: str) -> Mapping[str, Any]:
        """The first container of what a service should run."""
        revision = self._described(service)["taskDefinition"]
        found = self.ecs.describe_task_definition(taskDefinition=revision)["taskDefinition"]
        container: Mapping[str, Any] = found["containerDefinitions"][0]
        return container

    def tags(self) -> dict[str, str]:
        """By service, the tag of the image that it should run."""
        return {name: str(self.container(name)["image"]).rpartition(":")[2] for name in SERVICES}

    def notes(self) -> dict[str, dict[str, str]]:
        """By service, its tags, where it has any."""
        found = {name: {tag["key"]: tag["value"] for tag in self._described(name).get("tags", [])} for name in SERVICES}
        return {name: tags for name, tags in found.items() if tags}

    def _described(self, service: str) -> Mapping[str, Any]:
        answer = self.ecs.describe_services(cluster=NAME, services=[service], include=["TAGS"])
        found: Mapping[str, Any] = answer["services"][0]
        return found

    # -------------------------------------------------------------------------------------------------- what ECS does

    def run(self) -> None:
        """Bring services to what they should run, until `end`."""
        while not self._ended.wait(_LOOK_S):
            self._step()

    def end(self) -> None:
        """Stop."""
        self._ended.set()

    def _step(self) -> None:
        for service in list(self._backend.services.values()):
            wanted = str(service.task_definition)
            if "/" not in wanted:
                wanted = str(self._backend.describe_task_definition(wanted).arn)
                service.task_definition = wanted
            before = self._runs.get(service.name)
            if before is None or before == wanted:
                self._settle(service, wanted)
            elif service.deployments[0]["taskDefinition"] != wanted:
                self.updates.append((service.name, wanted.rpartition("/")[2]))
                service.deployments = [
                    self._deployment(service, wanted, "PRIMARY", "IN_PROGRESS"),
                    self._deployment(service, before, "ACTIVE", "COMPLETED"),
                ]
            elif service.name in self.stuck:
                continue
            elif service.name in self.broken:
                service.events = [
                    {"id": "1", "createdAt": datetime.now(UTC), "message": "(service) tasks failed to start"}
                ]
                service.task_definition = before
                self._settle(service, before)
            else:
                self._settle(service, wanted)
        for tasks in list(self._backend.tasks.values()):
            for arn, task in list(tasks.items()):
                if arn not in self._seen_tasks:
                    self._seen_tasks.add(arn)
                    self.started.append(str(task.containers[0].image).rpartition(":")[2])
                    task.containers[0].exitCode = self.migrate_exit

    def _settle(self, service: Any, revision: str) -> None:
        is_there = self._runs.get(service.name) == revision and service.running_count == service.desired_count
        if is_there and [each["taskDefinition"] for each in service.deployments] == [revision]:
            return
        self._runs[service.name] = revision
        service.running_count = service.desired_count
        service.deployments = [self._deployment(service, revision, "PRIMARY", "COMPLETED")]

    @staticmethod
    def _deployment(service: Any, revision: str, status: str, rollout: str) -> dict[str, Any]:
        former: dict[str, Any] = service.deployments[0]
        return former | {"taskDefinition": revision, "status": status, "rolloutState": rollout}

    def answers_well(self) -> bool:
        """Whether the gateways that run are of a version that works."""
        running = self._runs["gateway"]
        image = self._backend.describe_task_definition(running).container_definitions[0]["image"]
        return str(image).rpartition(":")[2] not in self.unwell


@cache
def _loader(path: str | None) -> Any:
    """One for all sessions: each would read the descriptions of the services anew, among them a large one of EC2."""
    from botocore.loaders import create_loader

    return create_loader(path)


@contextmanager
def ecs_world() -> Iterator[tuple[EcsWorld, str, str]]:
    """The world, the address of its AWS, and the address at which its platform answers."""
    with pytest.MonkeyPatch.context() as patch:
        # Images of machines, thousands of them, which the emulator makes anew for each world, and nobody asks for.
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        patch.setattr("botocore.session.create_loader", _loader)
        with _running_world() as world:
            yield world


@contextmanager
def _running_world() -> Iterator[tuple[EcsWorld, str, str]]:
    from moto.server import ThreadedMotoServer

    aws, platform = free_ports(2)
    server = ThreadedMotoServer(HOST, aws, verbose=False)
    server.start()
    try:
        endpoint = f"http://{HOST}:{aws}"
        world = EcsWorld(endpoint)
        web = ThreadingHTTPServer((HOST, platform), _handler_of(world))
        thread = threading.Thread(target=world.run, daemon=True)
        thread.start()
        try:
            with served_by_thread(web):
                yield world, endpoint, f"http://{HOST}:{platform}"
        finally:
            world.end()
            thread.join()
    finally:
        urllib.request.urlopen(f"http://{HOST}:{aws}/moto-api/reset", data=b"", timeout=10).close()
        server.stop()


def _handler_of(world: EcsWorld) -> type[BaseHTTPRequestHandler]:
    answers: Mapping[str, Mapping[str, Any]] = {
        "/health": {"status": "healthy"},
        "/ready": {"status": "ready", "degraded": {}},
        "/api/v1/items": {"items": [], "next_cursor": None},
        "/stats/items/deploy-check": {"itemId": "deploy-check", "subscribers": 0},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers[self.path.partition("?")[0]]).encode()
            self.send_response(200 if world.answers_well() else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler
