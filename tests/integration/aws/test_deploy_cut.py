"""`bidding deploy` that is cut off, displaced, repeated or answered badly leaves no half of a deployment unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infrastructure.local.cli import main
from tests.integration.aws.aws_world import environment_of
from tests.programs import BIDDING, started
from tests.waiting import eventually

pytest.importorskip("boto3")
pytest.importorskip("moto")
import boto3
from botocore.exceptions import ClientError

from tests.integration.aws.ecs_world import NEW, OLD, REGISTRY, EcsWorld, ecs_world

pytestmark = pytest.mark.integration

Place = tuple[EcsWorld, list[str]]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The world, with OLD everywhere and nothing noted, and arguments with which a deployment in it takes no second."""
    with ecs_world() as (world, endpoint, url):
        for name, value in environment_of(endpoint).items():
            monkeypatch.setenv(name, value)
        yield world, ["--yes", "--url", url, "--look-every", "0.05", "--watch", "0"]


def deploy(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["deploy", *arguments])


def platform(world: EcsWorld) -> set[str]:
    """The tags of the platform's image that services should run, and what runs once."""
    once = set()
    for family in ("bidding-dev-one-shot", "bidding-dev-operator"):
        newest = world.ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
        once.add(str(newest["containerDefinitions"][0]["image"]).rpartition(":")[2])
    return {*once, *(tag for name, tag in world.tags().items() if name != "nats-0")}


class _Ecs:
    """ECS, where ``before`` is called with the name of each call, and may answer in its place."""

    def __init__(self, client: Any, before: Callable[[str], object]) -> None:
        self._client, self._before = client, before

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name == "get_paginator":
            return call

        def asked(**arguments: Any) -> Any:
            answer = self._before(name)
            return call(**arguments) if answer is None else answer

        return asked


def _through(patch: pytest.MonkeyPatch, before: Callable[[str], object]) -> None:
    def open_clients(region: str | None) -> Callable[[str], Any]:
        session = boto3.session.Session()
        return lambda service: _Ecs(session.client(service), before) if service == "ecs" else session.client(service)

    patch.setattr("infrastructure.local.commands.aws.deploy.open_clients", open_clients)


@pytest.mark.parametrize(
    ("call", "number", "is_done"),
    [
        ("tag_resource", 1, False),  # before anything is noted
        ("run_task", 1, False),  # before the migrations
        ("update_service", 1, False),  # noted what the archiver ran, and not changed it
        ("update_service", 3, False),  # before the gateway
        ("tag_resource", 5, False),  # before it is noted that all is done
        ("untag_resource", 2, True),  # amid what is forgotten
        ("untag_resource", 4, True),  # before the last of it
    ],
)
def test_cut_at_any_point_it_goes_back_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch, call: str, number: int, is_done: bool
) -> None:
    """Ctrl-C instead of a call that changes something; then the way back."""
    world, arguments = place
    calls = []

    def cut(name: str) -> None:
        calls.append(name)
        if name == call and calls.count(call) == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        _through(patch, cut)
        result = deploy("--tag", NEW, *arguments)
        assert result.exit_code == 130, result.output
    back = deploy("--roll-back", *arguments)
    assert back.exit_code == 0, back.output
    assert world.notes() == {}
    assert platform(world) == {NEW if is_done else OLD}


async def test_a_run_that_another_one_has_taken_over_stops(place: Place) -> None:
    """The same version from another machine, because the first one seemed to be dead. It was not."""
    world, arguments = place
    world.stuck = {"broadcaster"}
    command = (*BIDDING, "deploy", "--tag", NEW, *arguments)
    async with started(*command) as first:
        await eventually(lambda: "broadcaster" in dict(world.updates), seconds=60)
        run = world.notes()["gateway"].get("bidding:run")
        async with started(*command) as second:
            await eventually(lambda: world.notes()["gateway"].get("bidding:run") != run, seconds=60)
            world.stuck.clear()
            said, _ = await first.communicate()
            assert first.returncode == 1
            assert b"another run of `bidding deploy` has taken over" in said
            await second.communicate()
            assert second.returncode == 0
    assert [name for name, _ in world.updates] == ["archiver", "broadcaster", "gateway"]
    assert (platform(world), world.notes()) == ({NEW}, {})


def test_a_version_that_is_begun_is_noted_before_its_migrations(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations may take half an hour, in which another version must not begin."""
    world, arguments = place
    others: list[Result] = []

    def begin_another(name: str) -> None:
        if name == "run_task" and not others:
            others.append(deploy("--tag", OLD, *arguments))

    _through(monkeypatch, begin_another)
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert f"the deployment of {NEW} was not finished" in others[0].output
    assert platform(world) == {NEW}


def test_a_nats_that_failed_is_not_tried_again_unasked(place: Place) -> None:
    world, arguments = place
    world.broken = {"nats-0"}
    failed = deploy("--tag", NEW, "--nats-tag", "2.16", *arguments)
    assert (failed.exit_code, world.tags()["nats-0"]) == (1, "2.15"), failed.output
    world.broken = set()
    world.updates.clear()
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert "nats-0" not in dict(world.updates)
    assert world.tags()["nats-0"] == "2.15"


def test_half_a_new_nats_is_gone_on_with_as_it_was_begun(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    world, arguments = place

    def cut(name: str) -> None:
        if name == "update_service":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        _through(patch, cut)
        assert deploy("--tag", NEW, "--nats-tag", "2.16", *arguments).exit_code == 130
    other = deploy("--tag", NEW, *arguments)
    assert other.exit_code == 1
    assert f"--tag {NEW} --nats-tag 2.16" in other.output
    assert deploy("--tag", NEW, "--nats-tag", "2.16", *arguments).exit_code == 0
    assert world.container("nats-0")["image"] == f"{REGISTRY}/bidding-nats:2.16"


def test_an_alarm_that_is_not_there_is_no_silence(place: Place) -> None:
    world, arguments = place
    world.cloudwatch.delete_alarms(AlarmNames=["bidding-dev-shards-lost"])
    try:
        result = deploy("--tag", NEW, *arguments)
    finally:
        world.ring("shards-lost", state="OK")
    assert result.exit_code == 1
    assert "bidding-dev has no alarm shards-lost" in result.output
    assert (world.updates, world.notes()) == ([], {})


def test_alarms_without_data_are_named(place: Place) -> None:
    world, arguments = place
    world.ring("dead-letters", state="INSUFFICIENT_DATA")
    result = deploy("--tag", NEW, *arguments)
    world.ring("dead-letters", state="OK")
    assert result.exit_code == 0, result.output
    assert "Without data, so no proof either way: dead-letters" in result.output


def test_what_runs_and_what_is_deployed_is_kept_in_the_registry(place: Place) -> None:
    """What is pushed for another environment must not push it out."""
    world, arguments = place
    assert deploy("--tag", NEW, *arguments).exit_code == 0
    assert {f"dev-{OLD}", f"dev-{NEW}"} <= world.kept()


def test_answers_that_come_late_or_not_at_all_fail_no_deployment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    world, arguments = place
    asked: dict[str, int] = {}

    def disturb(name: str) -> object:
        asked[name] = asked.get(name, 0) + 1
        if name == "describe_tasks" and asked[name] == 1:
            return {"tasks": [], "failures": [{"reason": "MISSING"}]}
        if name == "describe_services" and "update_service" in asked and asked.setdefault("throttled", 0) < 2:
            asked["throttled"] += 1
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, name)
        return None

    _through(monkeypatch, disturb)
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert platform(world) == {NEW}
    assert asked["throttled"] == 2
