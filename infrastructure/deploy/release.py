"""The steps of a deployment, in their order, and the way back.

1. *image*: build and push it, unless the registry has it.
2. *revisions*: of each service's task definition one with the new image; nothing runs them yet.
3. *migrations*: a task of the new image, once. Where it fails nothing else has been touched.
4. *services*, one after the other, each until all its tasks are the new ones: NATS, archivers, broadcasters, the read
   cache, gateways. What reads events is there before what writes them (docs/decisions/0044).
5. *verification*: everything answers, and no alarm has begun to ring.

Where 4 or 5 fails, the services that were touched go back to what they ran, in the opposite order. Before a service is
touched, what it runs is written on it, as a tag; so a run that was killed is gone on with by the same command, and can
be rolled back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from infrastructure.deploy.alarms import Alarms
from infrastructure.deploy.ecs import Cluster, Service, short
from infrastructure.deploy.errors import DeployError, ServiceFailed, Unfinished, Unverified
from infrastructure.deploy.smoke import verify
from infrastructure.local.reporting import Reporter
from shared.aws.clients import AwsError

NATS: Final = tuple(f"nats-{number}" for number in range(3))
ORDER: Final = (*NATS, "archiver", "broadcaster", "cache-node", "cache-front-end", "gateway")
NEEDED: Final = ("archiver", "broadcaster", "gateway")
ONE_SHOT: Final = "one-shot"
HEAD: Final = "gateway"
"""The service on which the deployment itself is noted."""

RELEASE, FORMER, RINGING = "bidding:deploying", "bidding:former", "bidding:ringing"
"""Tags: what is being deployed, what a service ran before it, which alarms rang before it."""

_TAG_CHARACTERS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Times:
    """Bounds in seconds.

    Attributes:
        migrate_s: for the task of the migrations.
        service_s: for each service to change its tasks.
        verify_s: until everything has to answer.
        watch_s: for so long alarms are watched after that.
        looks_every_s: between two looks at anything.
    """

    migrate_s: float = 1_800.0
    service_s: float = 1_200.0
    verify_s: float = 180.0
    watch_s: float = 180.0
    looks_every_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Release:
    """What is deployed where.

    Attributes:
        name: of the environment, such as ``bidding-dev``: its cluster, and what its names begin with.
        tag: of the platform's image.
        image: with its registry and its tag.
        nats_image: the same of NATS; None leaves its image alone.
        url: what is asked whether all is well.
    """

    name: str
    tag: str
    image: str
    nats_image: str | None
    url: str


@dataclass(slots=True)
class Plan:
    """A release, and which revision each service goes to, in order."""

    release: Release
    revisions: dict[str, str] = field(default_factory=dict)
    migration: str = ""

    def changes(self, services: Mapping[str, Service]) -> Iterator[str]:
        """Services that do not run their revision yet, or were not settled when a former run ended."""
        for name, revision in self.revisions.items():
            if services[name].revision != revision or FORMER in services[name].notes:
                yield name


class Deployment:
    """One run. Blocking.

    Args:
        push: builds and pushes the image; None where it has to be there.
        is_pushed: whether the registry has it.
    """

    def __init__(
        self,
        cluster: Cluster,
        alarms: Alarms,
        release: Release,
        *,
        times: Times,
        reporter: Reporter,
        is_pushed: Callable[[], bool],
        push: Callable[[], None] | None,
    ) -> None:
        self._cluster = cluster
        self._alarms = alarms
        self._release = release
        self._times = times
        self._reporter = reporter
        self._is_pushed = is_pushed
        self._push = push

    # ------------------------------------------------------------------------------------------------------------ look

    def examine(self, *, register: bool) -> Plan:
        """What there is to do. Registers the new revisions where ``register`` says so; changes nothing else.

        Raises:
            Unfinished: another release was begun there.
            DeployError: the cluster lacks a service.
            AwsError: AWS cannot be asked.
        """
        services = self._services()
        begun = services[HEAD].notes.get(RELEASE)
        if begun not in (None, self._release.tag):
            raise Unfinished(
                f"the deployment of {begun} was not finished. Go on with it (--tag {begun}), or go back (--roll-back)."
            )
        plan = Plan(self._release)
        for name in (name for name in ORDER if name in services):
            image = self._release.nats_image if name in NATS else self._release.image
            family = f"{self._release.name}-{name}"
            plan.revisions[name] = self._cluster.revision_with(family, image, register=register)
        plan.migration = self._cluster.revision_with(
            f"{self._release.name}-{ONE_SHOT}", self._release.image, register=register
        )
        return plan

    def steps(self) -> Iterator[str]:
        """What a run would do, a line for each step. Changes nothing.

        Raises:
            DeployError, AwsError: as in `examine`.
        """
        plan = self.examine(register=False)
        services = self._services()
        release = self._release
        if self._is_pushed():
            yield f"image       {release.image} is pushed already"
        elif self._push is None:
            raise self._not_pushed()
        else:
            yield f"image       build and push {release.image}"
        yield f"migrations  run {short(plan.migration)} once; stop here where it fails"
        changes = set(plan.changes(services))
        for name, revision in plan.revisions.items():
            now = short(services[name].revision)
            yield f"{name:<12}" + (f"{now} to {short(revision)}" if name in changes else f"runs {now} already")
        yield f"verify      {release.url}, then watch alarms for {self._times.watch_s:.0f} s"

    # ------------------------------------------------------------------------------------------------------------- run

    def run(self) -> None:
        """All steps. Where the new version fails, it is rolled back before the error is raised.

        Raises:
            ServiceFailed, Unverified: it failed, and what ran before runs again.
            DeployError: a step before the services failed, and nothing was changed; or the roll-back failed too.
            AwsError: AWS cannot be asked. What was begun stays; the same command goes on.
        """
        # What can be refused is refused before anything was built.
        self.examine(register=False)
        self._bring_image()
        with self._reporter.step("revisions"):
            plan = self.examine(register=True)
        services = self._services()
        with self._reporter.step("migrations", short(plan.migration)):
            self._migrate(plan, services)
        self._begin(services[HEAD])
        try:
            for name in list(plan.changes(services)):
                with self._reporter.step(name, short(plan.revisions[name])):
                    self._change(self._cluster.service(name), plan.revisions[name])
            with self._reporter.step("verification", self._release.url):
                self._verify()
        except (ServiceFailed, Unverified) as error:
            self._reporter.notice(f"{error}\nGoing back.")
            try:
                self.roll_back()
            except (DeployError, AwsError) as also:
                raise DeployError(f"{error}\nGoing back failed too: {also}\nTry again: --roll-back.") from error
            raise
        self._finish()

    def touched(self) -> dict[str, str]:
        """By service, what it ran before the deployment that is not finished, in the order of the way back.

        Raises:
            DeployError: the cluster lacks a service.
            AwsError: AWS cannot be asked.
        """
        services = self._services()
        found = {name: service.notes[FORMER] for name, service in services.items() if FORMER in service.notes}
        return {name: found[name] for name in sorted(found, key=ORDER.index, reverse=True)}

    def roll_back(self) -> None:
        """Every service that was touched to what it ran before, the last one first.

        Raises:
            ServiceFailed: one did not come up with what it ran before.
            AwsError: AWS cannot be asked.
        """
        for name in self.touched():
            service = self._cluster.service(name)
            former = self._former(service)
            with self._reporter.step(f"{name} back", short(former)):
                if service.revision != former:
                    self._cluster.update(name, former)
                self._wait(name, former)
            self._cluster.forget(service, [FORMER])
        head = self._cluster.service(HEAD)
        self._cluster.forget(head, [RELEASE, RINGING])
        self._take_back_one_shot(head)

    def _take_back_one_shot(self, head: Service) -> None:
        """Commands that run once, such as `recover`, take the newest revision: not that of a version that failed."""
        newest = self._cluster.revision_with(f"{self._release.name}-{ONE_SHOT}", None, register=False)
        if self._cluster.main_container(newest)["image"] != self._cluster.main_container(head.revision)["image"]:
            self._cluster.retire(newest)

    def _bring_image(self) -> None:
        if self._is_pushed():
            self._reporter.notice(f"{self._release.image} is pushed already")
            return
        if self._push is None:
            raise self._not_pushed()
        with self._reporter.step("image", self._release.image):
            self._push()

    def _not_pushed(self) -> DeployError:
        return DeployError(
            f"{self._release.image} is not pushed. Without --tag and --no-build it is built from what is checked out."
        )

    def _migrate(self, plan: Plan, services: Mapping[str, Service]) -> None:
        """Migrations that have run do nothing when they run again, so a run that goes on begins with them too."""
        try:
            self._cluster.run_once(
                plan.migration,
                # Where the archiver is: the same subnets and security group.
                services["archiver"].network,
                token=str(uuid.uuid4()),
                within_s=self._times.migrate_s,
                look=_unseen,
            )
        except DeployError as error:
            so = "no service was touched"
            if RELEASE in services[HEAD].notes:
                so = "what an earlier run had begun stays as it is (--roll-back goes back)"
            else:
                try:
                    self._take_back_one_shot(services[HEAD])
                except AwsError as also:
                    so += f", but one-shot commands would run {short(plan.migration)}: {also}"
            raise DeployError(
                f"the migrations failed, so {so}: {error}\n"
                f"    aws logs tail /{self._release.name}/{ONE_SHOT} --since 30m"
            ) from error

    def _begin(self, head: Service) -> None:
        """Note what is begun, and which alarms rang before it; a run that goes on takes what the first one noted."""
        if head.notes.get(RELEASE) == self._release.tag:
            self._alarms.before = head.notes.get(RINGING, "").split()
            return
        self._alarms.before = self._alarms.ringing()
        if self._alarms.before:
            self._reporter.notice(f"Rings already, and does not count: {', '.join(self._alarms.before)}")
        ringing = " ".join(self._alarms.before)[:_TAG_CHARACTERS_MAX]
        self._cluster.note(head, {RELEASE: self._release.tag, RINGING: ringing})

    def _change(self, service: Service, revision: str) -> None:
        # The note first: killed between the two, the next run knows what ran here. Written once: a run that goes on
        # must not take the new revision for the former one.
        if FORMER not in service.notes:
            self._cluster.note(service, {FORMER: short(service.revision)})
        if service.revision != revision:
            self._cluster.update(service.name, revision)
        self._wait(service.name, revision, self._alarms.require_silence)

    def _wait(self, name: str, revision: str, between: Callable[[], None] = lambda: None) -> None:
        self._cluster.wait_for(name, revision, within_s=self._times.service_s, look=partial(_without_argument, between))

    def _verify(self) -> None:
        times = self._times
        verify(
            self._release.url,
            within_s=times.verify_s,
            looks_every_s=times.looks_every_s,
            between=self._alarms.require_silence,
        )
        ends_s = time.monotonic() + times.watch_s
        while time.monotonic() < ends_s:
            time.sleep(min(times.looks_every_s, max(ends_s - time.monotonic(), 0.0)))
            self._alarms.require_silence()

    def _finish(self) -> None:
        services = self._services()
        for service in services.values():
            if FORMER in service.notes:
                self._cluster.forget(service, [FORMER])
        self._cluster.forget(services[HEAD], [RELEASE, RINGING])

    def _services(self) -> dict[str, Service]:
        found = {name: service for name, service in self._cluster.services().items() if name in ORDER}
        missing = [name for name in NEEDED if name not in found]
        if missing:
            raise DeployError(
                f"the cluster {self._cluster.name} has no service {', '.join(missing)}: apply Terraform first"
            )
        return found

    def _former(self, service: Service) -> str:
        """The whole ARN of what is noted in short."""
        return f"{service.revision.rpartition('/')[0]}/{service.notes[FORMER]}"


def _unseen(state: str) -> None:
    return


def _without_argument(call: Callable[[], None], _: Service) -> None:
    call()
