"""`bidding deploy` against an emulator of ECS: what it changes, in which order, and what it leaves where it fails."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infrastructure.local.cli import main
from tests.integration.aws.aws_world import environment_of
from tests.programs import BIDDING, started
from tests.waiting import eventually

pytest.importorskip("boto3")
pytest.importorskip("moto")
from tests.integration.aws.ecs_world import NEW, OLD, REGISTRY, EcsWorld, ecs_world

pytestmark = pytest.mark.integration

ALL_OLD = {"nats-0": "2.15", "archiver": OLD, "broadcaster": OLD, "gateway": OLD}
ALL_NEW = {"nats-0": "2.15", "archiver": NEW, "broadcaster": NEW, "gateway": NEW}
ORDER = ["archiver", "broadcaster", "gateway"]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EcsWorld, list[str]]]:
    """The world, and arguments with which a deployment in it takes a second."""
    with ecs_world() as (world, endpoint, url):
        for name, value in environment_of(endpoint).items():
            monkeypatch.setenv(name, value)
        yield world, ["--yes", "--url", url, "--look-every", "0.05", "--watch", "0.2"]


def deploy(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["deploy", *arguments])


def runs_once(world: EcsWorld) -> str:
    """The image of commands such as `recover`: whoever starts one takes the newest revision."""
    images = set()
    for family in ("bidding-dev-one-shot", "bidding-dev-operator"):
        newest = world.ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
        images.add(str(newest["containerDefinitions"][0]["image"]))
    [image] = images
    return image


def changed(world: EcsWorld) -> list[str]:
    return [name for name, _ in world.updates]


def _push_when_built(world: EcsWorld, said: Path, tag: str, pushed: Path) -> None:
    deadline_s = time.monotonic() + 60
    while not (said.exists() and "buildx" in said.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    world.push("bidding", tag)
    pushed.touch()


def _ring_when_changed(world: EcsWorld, service: str) -> None:
    deadline_s = time.monotonic() + 60
    while service not in changed(world) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    world.ring("gateway-5xx")


def test_a_new_version_is_rolled_out_in_order(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert world.started == [NEW]
    assert changed(world) == ORDER
    assert world.tags() == ALL_NEW
    # Nothing is left of it, and what was registered has everything that the former revision had.
    assert world.notes() == {}
    assert world.container("gateway")["environment"] == [
        {"name": "BROADCAST_PUBLIC_URL", "value": "wss://auction.example.com"}
    ]
    again = deploy("--tag", NEW, *arguments)
    assert again.exit_code == 0, again.output
    assert changed(world) == ORDER


def test_a_dry_run_prints_each_step_and_changes_nothing(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    result = deploy("--tag", NEW, "--dry-run", *arguments)
    assert result.exit_code == 0, result.output
    steps = [line.split()[0] for line in result.output.splitlines()]
    assert steps == ["image", "migrations", "nats-0", *ORDER, "verify"]
    assert "nats-0      runs bidding-dev-nats-0:1 already" in result.output
    assert "archiver    bidding-dev-archiver:1 to bidding-dev-archiver:new" in result.output
    assert (world.tags(), world.notes(), world.started) == (ALL_OLD, {}, [])
    families = world.ecs.list_task_definitions(familyPrefix="bidding-dev-gateway")["taskDefinitionArns"]
    assert len(families) == 1


def test_a_migration_that_fails_changes_nothing(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    world.migrate_exit = 1
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 1
    assert "the migrations failed, so no service was touched" in result.output
    assert "ended with exit code 1" in result.output
    assert "aws logs tail /bidding-dev/one-shot" in result.output
    assert (world.tags(), world.notes(), changed(world)) == (ALL_OLD, {}, [])
    # Commands that run once are not of the version that was not deployed either.
    assert runs_once(world).endswith(OLD)
    world.migrate_exit = 0
    again = deploy("--tag", NEW, *arguments)
    assert again.exit_code == 0, again.output
    assert world.tags() == ALL_NEW
    assert runs_once(world).endswith(NEW)


def test_a_version_that_does_not_answer_is_rolled_back(
    place: tuple[EcsWorld, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, arguments = place
    world.unwell = {NEW}
    monkeypatch.setattr("infrastructure.local.commands.aws.deploy.VERIFY_S", 0.5)
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 1
    assert "/ready: HTTP 503" in result.output
    assert changed(world) == [*ORDER, *reversed(ORDER)]
    assert (world.tags(), world.notes()) == (ALL_OLD, {})
    # Commands that run once, such as `recover`, are of the version that works, again.
    assert runs_once(world).endswith(OLD)


def test_an_alarm_that_rang_before_does_not_count(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    world.ring("shards-lost")

    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert "Rings already, and does not count: shards-lost" in result.output


def test_one_that_rings_while_services_change_takes_back_what_was_changed(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    world.stuck = {"broadcaster"}
    ringing = threading.Thread(target=_ring_when_changed, args=(world, "broadcaster"))
    ringing.start()
    result = deploy("--tag", NEW, *arguments)
    ringing.join()
    assert result.exit_code == 1, result.output
    assert "the alarm gateway-5xx began to ring" in result.output
    assert changed(world) == ["archiver", "broadcaster", "archiver"]
    assert (world.tags(), world.notes()) == (ALL_OLD, {})


def test_what_ecs_takes_back_takes_all_back(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    world.broken = {"gateway"}
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 1
    assert "gateway: ECS has taken the deployment back to bidding-dev-gateway:1" in result.output
    assert "tasks failed to start" in result.output
    assert (world.tags(), world.notes()) == (ALL_OLD, {})


async def test_a_run_that_is_killed_is_gone_on_with(place: tuple[EcsWorld, list[str]]) -> None:
    """kill -9 between the archiver and the gateway; then another version, which is refused; then the same one again."""
    world, arguments = place
    world.stuck = {"broadcaster"}
    async with started(*BIDDING, "deploy", "--tag", NEW, *arguments) as process:
        await eventually(lambda: "broadcaster" in changed(world), seconds=60)
        process.kill()
    assert world.tags() == ALL_NEW | {"gateway": OLD}
    assert world.notes()["archiver"] == {"bidding:former": "bidding-dev-archiver:1"}
    assert world.notes()["gateway"]["bidding:deploying"] == NEW
    other = deploy("--tag", OLD, *arguments)
    assert other.exit_code == 1
    assert f"the deployment of {NEW} was not finished" in other.output
    notes, world.migrate_exit = world.notes(), 1
    failed = deploy("--tag", NEW, *arguments)
    assert "what an earlier run had begun stays as it is" in failed.output
    former_run = notes["gateway"].pop("bidding:run")
    left = world.notes()
    assert left["gateway"].pop("bidding:run") != former_run
    assert (failed.exit_code, left) == (1, notes)
    world.stuck.clear()
    world.migrate_exit = 0
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert (world.tags(), world.notes()) == (ALL_NEW, {})
    # Each service was changed once, by either run.
    assert changed(world) == ORDER


async def test_a_run_that_is_killed_can_be_rolled_back(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    world.stuck = {"broadcaster"}
    async with started(*BIDDING, "deploy", "--tag", NEW, *arguments) as process:
        await eventually(lambda: "broadcaster" in changed(world), seconds=60)
        process.kill()
    look = deploy("--roll-back", "--dry-run", *arguments)
    assert look.output.splitlines() == [
        "broadcaster back to bidding-dev-broadcaster:1",
        "archiver    back to bidding-dev-archiver:1",
    ]
    result = deploy("--roll-back", *arguments)
    assert result.exit_code == 0, result.output
    assert (world.tags(), world.notes()) == (ALL_OLD, {})
    assert "No deployment is unfinished" in deploy("--roll-back", *arguments).output


def test_new_settings_of_terraform_are_rolled_out_too(place: tuple[EcsWorld, list[str]]) -> None:
    """Terraform makes a revision and leaves the service alone; the deployment takes the newest settings."""
    world, arguments = place
    world.register("gateway", OLD, BID_ACK="log")
    result = deploy("--tag", NEW, *arguments)
    assert result.exit_code == 0, result.output
    assert {"name": "BID_ACK", "value": "log"} in world.container("gateway")["environment"]


def test_a_new_nats_goes_first(place: tuple[EcsWorld, list[str]]) -> None:
    world, arguments = place
    result = deploy("--tag", NEW, "--nats-tag", "2.16", *arguments)
    assert result.exit_code == 0, result.output
    assert changed(world) == ["nats-0", *ORDER]
    assert world.container("nats-0")["image"] == f"{REGISTRY}/bidding-nats:2.16"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tag", "ccccccc"], "bidding:ccccccc is not pushed."),
        (["--tag", NEW, "--url", "auction.example.com"], "is no address such as https://"),
        (["--tag", NEW, "--env", "prod"], "bidding-prod"),
        (["--tag", NEW, "--nats-tag", "9.9"], "bidding-nats:9.9 is not pushed"),
        (["--tag", NEW, "--architecture", "ARM64"], "the tasks of dev run on X86_64"),
    ],
)
def test_bad_input_is_refused_before_anything_begins(
    place: tuple[EcsWorld, list[str]], arguments: list[str], said: str
) -> None:
    world, others = place
    result = deploy(*others, *arguments)
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert "Traceback" not in result.output
    assert (world.tags(), world.notes(), world.started) == (ALL_OLD, {}, [])


def test_without_aws_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    result = deploy("--tag", NEW)
    assert result.exit_code == 2
    assert "Could not connect" in result.output


def test_what_is_checked_out_is_built_and_pushed(
    place: tuple[EcsWorld, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program in Docker's place that says what it got, and a checkout of its own."""
    world, arguments = place
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "file").write_text("one")
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True, env=os.environ | author)
    tag = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, check=True, capture_output=True, text=True)
    said = tmp_path / "said"
    docker = tmp_path / "docker"
    pushed = tmp_path / "pushed"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {said}\n[ "$1" = login ] && cat > {tmp_path}/password && exit 0\n'
        f"while [ ! -e {pushed} ]; do sleep 0.05; done\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("infrastructure.deploy.image.ROOT", root)
    pushing = threading.Thread(target=_push_when_built, args=(world, said, tag.stdout.strip(), pushed))
    pushing.start()
    result = deploy(*arguments)
    pushing.join()
    assert result.exit_code == 0, result.output
    login, build = said.read_text().splitlines()
    assert login.startswith("login --username AWS --password-stdin ")
    assert (tmp_path / "password").read_text() not in login
    image = f"{REGISTRY}/bidding:{tag.stdout.strip()}"
    assert build.endswith(f"--file infrastructure/docker/Dockerfile --tag {image} --push .")
    assert world.container("gateway")["image"] == image
    (root / "more").write_text("in the image, and in no commit")
    assert "changes that are not committed (more)" in deploy(*arguments).output
    (root / "more").unlink()
    (root / "file").write_text("two")
    assert "changes that are not committed (file)" in deploy(*arguments).output
    docker.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    subprocess.run(["git", "commit", "-qam", "two"], cwd=root, check=True, env=os.environ | author)
    failed = deploy(*arguments)
    assert failed.exit_code == 1
    assert "no space left" in failed.output
    assert json.dumps(world.notes()) == "{}"
