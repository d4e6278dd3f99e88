"""What uses AWS, against an emulator (moto's server): buckets, secrets, the registry of services, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest

from archival_worker.chain.sinks import Digest, S3Sink
from infrastructure.docker.entrypoint import EXIT_CONFIGURATION
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from load_tests.run.cloudwatch import ARCHIVED, DECIDED, QUESTIONS, ask
from shared.aws import clients as aws
from shared.aws import discovery
from shared.aws.clients import AwsError, ensure_bucket, read_secret
from shared.aws.cloudwatch import Gauge, Metric, Question, Reporter, Total, read_back
from shared.aws.discovery import Instance, find_servers
from shared.aws.presence import presence
from shared.aws.settings import AwsSettings
from tests.integration.archive.archive_world import new_database
from tests.integration.aws.aws_world import Registry, environment_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = environment_of(endpoint)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


# ------------------------------------------------------------------------------------------------------ S3


def test_a_bucket_is_made_once_and_takes_exports(endpoint: str, tmp_path: Path) -> None:
    client = aws.open_s3(endpoint_url=endpoint)
    bucket = f"bucket-{uuid.uuid4().hex}"
    assert ensure_bucket(client, bucket) is True
    assert ensure_bucket(client, bucket) is False
    path = tmp_path / "export"
    path.write_bytes(b"closed" * 1_000)
    digest = Digest(6_000, hashlib.sha256(path.read_bytes()).digest())
    S3Sink(client, bucket).put(path, "items/00/lot-1/1-2.jsonl.gz", digest)
    assert client.get_object(Bucket=bucket, Key="items/00/lot-1/1-2.jsonl.gz")["Body"].read() == path.read_bytes()
    client.close()


def test_the_bucket_of_the_compose_stack_is_prepared(environment: dict[str, str]) -> None:
    def prepare(**more: str) -> subprocess.CompletedProcess[str]:
        # Not the environment of this process: an AWS profile of whoever runs the tests must not be used.
        given = {"PATH": os.environ["PATH"], "ENVIRONMENT": "local", **more}
        command = [sys.executable, "-m", "infrastructure.docker.entrypoint", "prepare-aws"]
        return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)

    bucket = f"bucket-{uuid.uuid4().hex}"
    assert prepare(**environment, EXPORT_S3_BUCKET=bucket).stdout == f"bucket {bucket} made\n"
    assert prepare(**environment, EXPORT_S3_BUCKET=bucket).stdout == f"bucket {bucket} is there\n"
    # Never at AWS itself.
    assert prepare(EXPORT_S3_BUCKET=bucket).returncode == EXIT_CONFIGURATION


# ------------------------------------------------------------------------------------------------------ secrets


def new_secret(text: str) -> str:
    """Its ARN."""
    client = aws.open_secrets()
    arn: str = client.create_secret(Name=f"secret-{uuid.uuid4().hex}", SecretString=text)["ARN"]
    client.close()
    return arn


def test_a_secret_is_read_by_arn_and_one_that_is_not_there_is_named() -> None:
    client = aws.open_secrets()
    assert read_secret(client, new_secret("p@ss")) == "p@ss"
    with pytest.raises(AwsError, match="secret nowhere: ResourceNotFoundException"):
        read_secret(client, "nowhere")
    client.create_secret(Name="binary", SecretBinary=b"\0")
    with pytest.raises(AwsError, match="binary"):
        read_secret(client, "binary")
    client.close()


def test_without_an_answer_the_error_is_ours() -> None:
    client = aws.open_secrets(endpoint_url=f"http://127.0.0.1:{free_ports(1)[0]}", timeout_s=1)
    with pytest.raises(AwsError, match="secret any"):
        read_secret(client, "any")
    client.close()


async def test_a_program_of_the_image_gets_its_password_from_secrets_manager(
    servers: Stack, environment: dict[str, str]
) -> None:
    """The entry point reads the secret, and `migrate` logs in as the user that it names, whom the URL does not tell."""
    url = await new_database(servers)
    database = url.rpartition("/")[2]
    password = "from/the@secret:manager"
    owner = await asyncpg.connect(url)
    user = await owner.fetchval("SELECT current_user")
    await owner.close()
    arn = await asyncio.to_thread(new_secret, json.dumps({"username": user, "password": password}))
    host = url.rpartition("@")[2].partition("/")[0]
    given = {
        "PATH": os.environ["PATH"],
        **environment,
        "POSTGRES_URL": f"postgresql://{host}/{database}",
        "POSTGRES_SECRET_ARN": arn,
    }
    command = [sys.executable, "-m", "infrastructure.docker.entrypoint", "migrate"]
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "applied 0001_archive.sql" in ended.stdout
    without = {**given, "POSTGRES_SECRET_ARN": "nowhere"}
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=without, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == EXIT_CONFIGURATION
    assert "secret nowhere: ResourceNotFoundException" in ended.stderr


# ------------------------------------------------------------------------------------------------------ Cloud Map


async def no_metrics() -> Sequence[Metric]:
    return []


@pytest.fixture
def registry(environment: dict[str, str]) -> Iterator[Registry]:
    registry = Registry("nats")
    yield registry
    registry.client.close()


async def test_a_service_is_registered_while_it_runs_and_not_after(endpoint: str, registry: Registry) -> None:
    settings = AwsSettings(
        aws_endpoint_url=endpoint, cloud_map_service_id=registry.service_id, cloud_map_address="10.0.0.7"
    )

    async def registered() -> list[Instance]:
        return await asyncio.to_thread(registry.instances)

    async with presence("nats", 4222, no_metrics, settings):
        (instance,) = await eventually(registered)
        assert (instance.address, instance.port) == ("10.0.0.7", 4222)
        assert instance.instance_id.startswith("nats-")
    assert await registered() == []


async def test_a_service_that_stops_before_it_is_told_that_it_is_registered(
    endpoint: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AwsSettings(
        aws_endpoint_url=endpoint, cloud_map_service_id=registry.service_id, cloud_map_address="10.0.0.7"
    )
    is_registered, may_answer = threading.Event(), threading.Event()

    def register(*args: Any) -> None:
        discovery.register(*args)
        is_registered.set()
        may_answer.wait(30)

    monkeypatch.setattr("shared.aws.presence.discovery", SimpleNamespace(**{**vars(discovery), "register": register}))
    async with presence("nats", 4222, no_metrics, settings):
        assert await asyncio.to_thread(is_registered.wait, 30)
        asyncio.get_running_loop().call_later(0.2, may_answer.set)
    assert await asyncio.to_thread(registry.instances) == []


async def test_a_registry_that_refuses_holds_nobody_up(endpoint: str) -> None:
    settings = AwsSettings(aws_endpoint_url=endpoint, cloud_map_service_id="srv-nowhere", cloud_map_address="10.0.0.7")
    async with asyncio.timeout(30), presence("nats", 4222, no_metrics, settings):
        pass


def test_nats_is_found_in_the_registry_with_its_credentials(registry: Registry) -> None:
    for number in (2, 1):
        attributes = {"AWS_INSTANCE_IPV4": f"10.0.0.{number}", "AWS_INSTANCE_PORT": "4333"}
        registry.client.register_instance(
            ServiceId=registry.service_id, InstanceId=f"nats-{number}", Attributes=attributes
        )
    given = os.environ | {"NATS_URL": f"tls+cloudmap://bidding:p%40@{registry.namespace}/nats"}
    assert find_servers(given)["NATS_URL"] == "tls://bidding:p%40@10.0.0.1:4333,tls://bidding:p%40@10.0.0.2:4333"
    plain = {"NATS_URL": "nats://a:4222"}
    assert find_servers(plain) == plain


def test_a_registry_without_an_instance_is_an_error(registry: Registry) -> None:
    with pytest.raises(AwsError, match="no instance of nats"):
        find_servers(os.environ | {"NATS_URL": f"nats+cloudmap://{registry.namespace}/nats"})


# ------------------------------------------------------------------------------------------------------ CloudWatch


async def test_what_is_reported_is_read_back(endpoint: str) -> None:
    namespace = f"Bidding/{uuid.uuid4().hex}"
    client = aws.open_cloudwatch(endpoint_url=endpoint)
    started = datetime.now(UTC)
    counts = iter([10, 25])

    async def read() -> Sequence[Metric]:
        return [Total("BidsDecided", next(counts)), Gauge("OutboxLongest", 7)]

    # A service of its own: where dimensions are given, the emulator mixes namespaces up.
    service = uuid.uuid4().hex
    reporter = Reporter(client, namespace=namespace, service=service, read=read, interval_s=60)
    await reporter.once()
    await reporter.once()
    decided, longest = Question(service, "BidsDecided", "Sum"), Question(service, "OutboxLongest", "Average")
    nobody = Question("nobody", "Lag", "Maximum")
    answers = await asyncio.to_thread(
        read_back, client, namespace, [decided, longest, nobody], started, datetime.now(UTC)
    )
    assert answers == {decided: 25, longest: 7, nobody: None}
    client.close()


async def test_every_service_reports_what_a_load_run_asks_for(
    start_stack: StackFactory, environment: dict[str, str]
) -> None:
    namespace = f"Bidding/{uuid.uuid4().hex}"
    reporting = {"METRICS_CLOUDWATCH_NAMESPACE": namespace, "METRICS_CLOUDWATCH_INTERVAL_S": "1"}
    started = datetime.now(UTC)
    stack = await start_stack(env=environment | reporting)
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, trust_env=False) as client:
        for amount in (5, 6, 3):
            answer = await client.post("/api/v1/items/lot-1/bid", json={"user_id": "ada", "amount": amount})
            assert answer.status_code in (200, 201)

    seen = {DECIDED: 3, ARCHIVED: 2}

    async def reported() -> bool:
        figures = await ask(namespace, started, seen, wait_s=0)
        return not figures.problem and None not in figures.values.values()

    await eventually(reported, seconds=60)
    figures = await ask(namespace, started, seen, wait_s=0)
    assert set(figures.values) == set(QUESTIONS)
    assert {question: figures.values[question] for question in seen} == seen


async def test_who_reads_through_the_cache_reports_what_its_alarms_look_at(
    start_stack: StackFactory, environment: dict[str, str]
) -> None:
    namespace = f"Bidding/{uuid.uuid4().hex}"
    reporting = {"METRICS_CLOUDWATCH_NAMESPACE": namespace, "METRICS_CLOUDWATCH_INTERVAL_S": "1"}
    started = datetime.now(UTC)
    stack = await start_stack(services=("api_gateway",), cache_nodes=1, env=environment | reporting)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.ports.cache}", trust_env=False) as client:
        for number in range(3):
            assert (await client.get(f"/api?key=items/nothing-{number}")).status_code == 404

    gets, seconds = (Question("cache_front_end", name, "Sum") for name in ("CacheGets", "CacheGetSeconds"))
    loads = [Question(service, "CacheLoads", "Sum") for service in ("cache_node", "cache_front_end", "api_gateway")]
    ring, keeping = (Question("cache_node", name, "Maximum") for name in ("CacheRingNodes", "CacheKeeping"))
    cloudwatch = aws.open_cloudwatch()

    async def reported() -> Mapping[Question, float | None]:
        questions = [gets, seconds, *loads, ring, keeping]
        answers = await asyncio.to_thread(read_back, cloudwatch, namespace, questions, started, datetime.now(UTC))
        complete = answers[gets] == 3 and answers[ring] == answers[keeping] == 1 and None not in answers.values()
        return answers if complete and sum(answers[each] or 0 for each in loads) >= 3 else {}

    answers = await eventually(reported, seconds=60)
    assert (answers[seconds] or 0) > 0
    cloudwatch.close()
