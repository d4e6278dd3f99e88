"""ECS as a deployment sees it: services, revisions of their task definitions, a task that runs once, and notes.

Every call blocks. What a deployment has to know of its former runs is written on the services themselves, as tags, so
that a run on another machine finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infrastructure.deploy.errors import DeployError, ServiceFailed
from shared.aws.clients import AwsError, translated

Client = Callable[[str], Any]
"""Makes a client of a service of AWS, by its name for boto3."""

# The members of an answer of `describe_task_definition` that `register_task_definition` accepts.
_REGISTRABLE: Final = (
    "family",
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "containerDefinitions",
    "volumes",
    "placementConstraints",
    "requiresCompatibilities",
    "cpu",
    "memory",
    "pidMode",
    "ipcMode",
    "proxyConfiguration",
    "ephemeralStorage",
    "runtimePlatform",
    "enableFaultInjection",
)
_DESCRIBED_AT_ONCE: Final = 10
_EVENTS_SHOWN: Final = 3
_LOOKS_OF_BEFORE: Final = 3
UNANSWERED_S: Final = 120.0
"""How long AWS may refuse to answer while this waits for something: a throttled look is no failed deployment."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it is now.

    Attributes:
        revision: ARN of the task definition that it should run.
        deployments: as ECS tells them; the one under way is PRIMARY.
        network: where its tasks are, as `run_task` takes it.
        notes: its tags.
        events: what ECS said last, newest first.
    """

    name: str
    arn: str
    revision: str
    desired: int
    running: int
    deployments: Sequence[Mapping[str, Any]]
    network: Mapping[str, Any]
    notes: Mapping[str, str]
    events: Sequence[str]

    @property
    def primary(self) -> Mapping[str, Any]:
        """The deployment that ECS works towards."""
        return next((each for each in self.deployments if each["status"] == "PRIMARY"), {})

    def settled_on(self, revision: str) -> bool:
        """Whether all of its tasks, and no others, run this revision.

        Raises:
            ServiceFailed: it will not come to that.
        """
        if self.revision != revision:
            raise ServiceFailed(
                f"{self.name}: ECS has taken the deployment back to {short(self.revision)}{self._said()}"
            )
        primary = self.primary
        if primary.get("rolloutState") == "FAILED":
            raise ServiceFailed(
                f"{self.name}: {primary.get('rolloutStateReason') or 'the deployment failed'}{self._said()}"
            )
        return (
            len(self.deployments) == 1
            and primary.get("taskDefinition") == revision
            and primary.get("rolloutState", "COMPLETED") == "COMPLETED"
            and self.running == self.desired
        )

    def _said(self) -> str:
        return "".join(f"\n    {event}" for event in self.events[:_EVENTS_SHOWN])


def short(revision: str) -> str:
    """``family:3`` of the ARN of a task definition."""
    return revision.rpartition("/")[2]


class Patience:
    """Wraps a question that is asked of AWS again and again. A failed one is ignored, unless all have failed for
    `UNANSWERED_S` seconds. ``is_tried``: whether the last one failed and was ignored."""

    def __init__(self) -> None:
        self.is_tried = False
        self._failing_since_s: float | None = None

    def __enter__(self) -> None:
        self.is_tried = False

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self._failing_since_s = None
        elif isinstance(error, AwsError):
            now_s = time.monotonic()
            self._failing_since_s = now_s if self._failing_since_s is None else self._failing_since_s
            self.is_tried = now_s - self._failing_since_s < UNANSWERED_S
        return self.is_tried


class Cluster:
    """One environment's cluster.

    Args:
        looks_every_s: how often ECS is asked while something is waited for.
    """

    def __init__(self, client: Client, name: str, *, looks_every_s: float = 5.0) -> None:
        self.name = name
        with translated("ECS"):
            self._ecs = client("ecs")
        self._looks_every_s = looks_every_s

    def services(self) -> dict[str, Service]:
        """All services, by name.

        Raises:
            AwsError: ECS cannot be asked, or there is no such cluster.
        """
        with translated(f"ECS, services of {self.name}"):
            pages = self._ecs.get_paginator("list_services").paginate(cluster=self.name)
            arns = [arn for page in pages for arn in page["serviceArns"]]
        found: dict[str, Service] = {}
        for first in range(0, len(arns), _DESCRIBED_AT_ONCE):
            found |= {each.name: each for each in self._described(arns[first : first + _DESCRIBED_AT_ONCE])}
        return found

    def service(self, name: str) -> Service:
        """One service as it is now.

        Raises:
            AwsError: ECS cannot be asked.
            DeployError: there is none of that name.
        """
        for found in self._described([name]):
            return found
        raise DeployError(f"there is no service {name} in the cluster {self.name}")

    def _described(self, names: Sequence[str]) -> Iterator[Service]:
        with translated(f"ECS, services of {self.name}"):
            answer = self._ecs.describe_services(cluster=self.name, services=list(names), include=["TAGS"])
        for each in answer["services"]:
            if each["status"] != "INACTIVE":
                yield Service(
                    name=each["serviceName"],
                    arn=each["serviceArn"],
                    revision=each["taskDefinition"],
                    desired=each["desiredCount"],
                    running=each["runningCount"],
                    deployments=each.get("deployments", []),
                    network=each.get("networkConfiguration", {}),
                    notes={tag["key"]: tag["value"] for tag in each.get("tags", [])},
                    events=[event["message"] for event in each.get("events", [])],
                )

    def revision_with(self, family: str, image: str, *, runs: str | None = None, register: bool) -> str:
        """A revision of a family with this image in its first container, and the newest settings.

        The newest settings are in the newest revision, which Terraform or an earlier deployment has made. If its image
        is another one, it is copied with this image if ``register``; otherwise the answer is ``family:new``. If the
        copy would equal the revision that the service ``runs``, the answer is that revision.

        Raises:
            AwsError: ECS cannot be asked, or does not know the family.
        """
        with translated(f"ECS, task definition {family}"):
            answer = self._ecs.describe_task_definition(taskDefinition=family, include=["TAGS"])
            newest = answer["taskDefinition"]
            main, *others = newest["containerDefinitions"]
            if main["image"] == image:
                return str(newest["taskDefinitionArn"])
            copy = _registrable(newest) | {"containerDefinitions": [main | {"image": image}, *others]}
            if runs is not None and copy == _registrable(self._definition(runs)):
                return runs
            if not register:
                return f"{family}:new"
            if tags := answer.get("tags"):
                copy["tags"] = tags
            made = self._ecs.register_task_definition(**copy)
        return str(made["taskDefinition"]["taskDefinitionArn"])

    def _definition(self, revision: str) -> Mapping[str, Any]:
        with translated(f"ECS, task definition {short(revision)}"):
            answer = self._ecs.describe_task_definition(taskDefinition=revision)
        found: Mapping[str, Any] = answer["taskDefinition"]
        return found

    def main_container(self, revision: str) -> Mapping[str, Any]:
        """The definition of the first container of a revision.

        Raises:
            AwsError: ECS cannot be asked.
        """
        found: Mapping[str, Any] = self._definition(revision)["containerDefinitions"][0]
        return found

    def architecture(self, revision: str) -> str:
        """What processors its tasks run on: ``ARM64`` or ``X86_64``.

        Raises:
            AwsError: ECS cannot be asked.
        """
        return str(self._definition(revision).get("runtimePlatform", {}).get("cpuArchitecture") or "X86_64")

    def update(self, service: str, revision: str) -> None:
        """Begin a deployment of this revision."""
        with translated(f"ECS, update of {service}"):
            self._ecs.update_service(cluster=self.name, service=service, taskDefinition=revision)

    def wait_for(
        self, service: str, revision: str, *, within_s: float, look: Callable[[Service], None] = lambda found: None
    ) -> None:
        """Wait until all tasks of the service run this revision. ``look`` gets the service at each look.

        Raises:
            ServiceFailed: it failed, was taken back by ECS, or was not done within ``within_s`` seconds.
            AwsError: ECS cannot be asked for two minutes.
        """
        deadline_s = time.monotonic() + within_s
        patience = Patience()
        # An answer just after the update may still be from before it.
        believed_s = time.monotonic() + _LOOKS_OF_BEFORE * self._looks_every_s
        is_told = False
        while True:
            with patience:
                found = self.service(service)
            if patience.is_tried:
                time.sleep(self._looks_every_s)
                continue
            is_told = is_told or found.revision == revision or time.monotonic() > believed_s
            if is_told and found.settled_on(revision):
                return
            look(found)
            if time.monotonic() > deadline_s:
                raise ServiceFailed(
                    f"{service}: {found.running} of {found.desired} tasks run after {within_s:.0f} s, "
                    f"in {len(found.deployments)} deployments"
                )
            time.sleep(self._looks_every_s)

    def run_once(
        self, revision: str, network: Mapping[str, Any], *, token: str, within_s: float, look: Callable[[str], None]
    ) -> str:
        """Run a task of this revision to its end, and return its ARN. ``look`` gets its state at each look.

        ``token`` makes the start idempotent: a second start under the same one is the same task.

        Raises:
            DeployError: it did not start, did not end within ``within_s`` seconds, or ended with another exit code
                than 0.
            AwsError: ECS cannot be asked for two minutes.
        """
        main = str(self.main_container(revision)["name"])
        with translated(f"ECS, task {short(revision)}"):
            answer = self._ecs.run_task(
                cluster=self.name,
                taskDefinition=revision,
                launchType="FARGATE",
                networkConfiguration=dict(network),
                startedBy="bidding-deploy",
                clientToken=token,
            )
        if not answer["tasks"]:
            reasons = ", ".join(str(each.get("reason")) for each in answer.get("failures", []))
            raise DeployError(f"the task {short(revision)} did not start: {reasons or 'ECS does not say why'}")
        task = str(answer["tasks"][0]["taskArn"])
        deadline_s = time.monotonic() + within_s
        patience, looks_without = Patience(), 0
        while True:
            with patience, translated(f"ECS, task {short(revision)}"):
                answer = self._ecs.describe_tasks(cluster=self.name, tasks=[task])
            if not patience.is_tried:
                if answer["tasks"]:
                    state = answer["tasks"][0]
                    if state["lastStatus"] in ("STOPPED", "DELETED"):
                        _require_success(state, main, revision)
                        return task
                    look(str(state["lastStatus"]).lower())
                else:
                    # An answer just after the start may still be from before it.
                    looks_without += 1
                    if looks_without > _LOOKS_OF_BEFORE:
                        raise DeployError(f"ECS has forgotten the task {task}")
            if time.monotonic() > deadline_s:
                raise DeployError(f"the task {short(revision)} did not end within {within_s:.0f} s; it goes on: {task}")
            time.sleep(self._looks_every_s)

    def note(self, service: Service, notes: Mapping[str, str]) -> None:
        """Write tags on the service."""
        with translated(f"ECS, notes on {service.name}"):
            tags = [{"key": key, "value": value} for key, value in notes.items()]
            self._ecs.tag_resource(resourceArn=service.arn, tags=tags)

    def forget(self, service: Service, keys: Sequence[str]) -> None:
        """Remove tags from the service."""
        with translated(f"ECS, notes on {service.name}"):
            self._ecs.untag_resource(resourceArn=service.arn, tagKeys=list(keys))


def _registrable(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {name: definition[name] for name in _REGISTRABLE if definition.get(name)}


def _require_success(state: Mapping[str, Any], name: str, revision: str) -> None:
    # ECS keeps no order of containers.
    main = next((each for each in state["containers"] if each.get("name") == name), state["containers"][0])
    code = main.get("exitCode")
    if code == 0:
        return
    reason = main.get("reason") or state.get("stoppedReason") or ""
    what = f"ended with exit code {code}" if code is not None else "did not run"
    raise DeployError(f"the task {short(revision)} {what}{f': {reason}' if reason else ''}")
