"""The steps of a deployment, in their order, and the way back.

1. *image*: build and push it, unless the registry has it; and mark it there as deployed, so that it is kept.
2. *notes*: what is deployed, and by which run, is written on the gateway's service (`notes.py`).
3. *revisions*: of each service's task definition one with the new image; nothing runs them yet.
4. *migrations*: a task of the new image runs once. If it fails, nothing else has been touched.
5. *services*, one after the other, each until all its tasks are the new ones: NATS, archivers, broadcasters, the read
   cache, gateways. What reads events is there before what writes them (docs/decisions/0044).
6. *verification*: everything answers, and no alarm has begun to ring.

If 5 or 6 fails, the services that were touched go back to what they ran, in the opposite order. Before a service is
touched, what it runs is written on it, as a tag. So the same command can go on with a run that was killed, or roll it
back.
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
from infrastructure.deploy.notes import FORMER, HEAD, NATS, RELEASE, RINGING, Notes, as_if_cleaned_up, is_finished
from infrastructure.deploy.smoke import verify
from infrastructure.local.reporting import Reporter
from shared.aws.clients import AwsError

NATS_SERVERS: Final = tuple(f"nats-{number}" for number in range(3))
ORDER: Final = (*NATS_SERVERS, "archiver", "broadcaster", "cache-node", "cache-front-end", "gateway")
NEEDED: Final = ("archiver", "broadcaster", "gateway")
ONE_SHOT: Final = "one-shot"
OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Times:
    """Bounds in seconds.

    Attributes:
        migrate_s: for the task of the migrations.
        service_s: for each service to change its tasks.
        verify_s: until everything has to answer.
        watch_s: how long alarms are watched after that.
        looks_every_s: between two looks at anything.
    """

    migrate_s: float = 1_800.0
    service_s: float = 1_200.0
    verify_s: float = 180.0
    watch_s: float = 180.0
    looks_every_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Release:
    """What to deploy, and where.

    Attributes:
        name: of the environment, such as ``bidding-dev``: its cluster, and what its names begin with.
        tag: of the platform's image.
        image: with its registry and its tag.
        nats_tag: of NATS' image; empty leaves each server the image that it runs.
        nats_image: the same with its registry.
        url: the address that the verification asks.
    """

    name: str
    tag: str
    image: str
    nats_tag: str
    nats_image: str
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
        is_pushed: whether the registry has an image.
        keep: marks an image in the registry as deployed, so that it is kept as long as it may run.
    """

    def __init__(
        self,
        cluster: Cluster,
        alarms: Alarms,
        release: Release,
        *,
        times: Times,
        reporter: Reporter,
        is_pushed: Callable[[str], bool],
        keep: Callable[[str], None],
        push: Callable[[], None] | None,
    ) -> None:
        self._cluster = cluster
        self._alarms = alarms
        self._release = release
        self._times = times
        self._reporter = reporter
        self._is_pushed = is_pushed
        self._keep = keep
        self._push = push
        self._notes = Notes(cluster, looks_every_s=times.looks_every_s)

    # ------------------------------------------------------------------------------------------------------------ look

    def examine(self, *, register: bool) -> Plan:
        """What there is to do. Registers the new revisions where ``register`` says so; changes nothing else.

        Raises:
            Unfinished: another release was begun there.
            DeployError: the cluster lacks a service.
            AwsError: AWS cannot be asked.
        """
        services = self._services()
        self._require_same(services[HEAD])
        self._alarms.require_all()
        plan = Plan(self._release)
        for name in (name for name in ORDER if name in services):
            revision = services[name].revision
            image = self._release.image
            if name in NATS_SERVERS:
                # Not the newest revision's: that may be of a version that failed.
                image = self._release.nats_image or str(self._cluster.main_container(revision)["image"])
            family = f"{self._release.name}-{name}"
            plan.revisions[name] = self._cluster.revision_with(family, image, runs=revision, register=register)
        plan.migration = self._commands(self._release.image, register=register)
        return plan

    def _commands(self, image: str, *, register: bool) -> str:
        """Revisions with this image for commands that run once, since they take the newest of their family.

        Returns:
            the one of the migrations.
        """
        self._cluster.revision_with(f"{self._release.name}-{OPERATOR}", image, register=register)
        return self._cluster.revision_with(f"{self._release.name}-{ONE_SHOT}", image, register=register)

    def _require_same(self, head: Service) -> None:
        begun = head.notes.get(RELEASE)
        nats = head.notes.get(NATS, "")
        if begun is None or (begun, nats) == (self._release.tag, self._release.nats_tag):
            return
        command = f"--tag {begun}{f' --nats-tag {nats}' if nats else ''}"
        raise Unfinished(
            f"the deployment of {begun}{f' with NATS {nats}' if nats else ''} was not finished. "
            f"Go on with it ({command}), or go back (--roll-back)."
        )

    def steps(self) -> Iterator[str]:
        """What a run would do, a line for each step. Changes nothing.

        Raises:
            DeployError, AwsError: as in `examine`.
        """
        plan = self.examine(register=False)
        services = self._services()
        release = self._release
        self._require_pushed_nats()
        if self._is_pushed(release.image):
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
            Overtaken: another run goes on with the deployment.
            DeployError: a step before the services failed, and nothing was changed; or the roll-back failed too.
            AwsError: AWS cannot be asked. What was begun stays; the same command goes on.
        """
        # First, so that what is refused is refused before anything is built.
        self.examine(register=False)
        self._require_pushed_nats()
        self._bring_image()
        self._begin()
        with self._reporter.step("revisions"):
            plan = self.examine(register=True)
        with self._reporter.step("migrations", short(plan.migration)):
            self._migrate(plan)
        try:
            for name in list(plan.changes(self._services())):
                with self._reporter.step(name, short(plan.revisions[name])):
                    self._change(name, plan.revisions[name])
            with self._reporter.step("verification", self._release.url):
                self._verify()
        except (ServiceFailed, Unverified) as error:
            # A service that another run has changed looks as if ECS had taken it back.
            self._notes.require_own()
            self._reporter.notice(f"{error}\nGoing back.")
            try:
                self._take_back()
            except (DeployError, AwsError) as also:
                raise DeployError(f"{error}\nGoing back failed too: {also}\nTry again: --roll-back.") from error
            raise
        self._notes.require_own()
        self._notes.finish(self._services())

    def unfinished(self) -> str | None:
        """The tag of a deployment that was begun and is neither done nor back; None where there is none.

        Raises:
            DeployError, AwsError: as in `touched`.
        """
        return self._services()[HEAD].notes.get(RELEASE)

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
        """Take every service that was touched back to what it ran before, the last one first.

        Raises:
            ServiceFailed: one did not come up with what it ran before.
            Overtaken: another run goes on with the deployment.
            AwsError: AWS cannot be asked.
        """
        self._notes.take({})
        self._take_back()

    def _take_back(self) -> None:
        for name in self.touched():
            self._notes.require_own()
            service = self._cluster.service(name)
            former = self._former(service)
            with self._reporter.step(f"{name} back", short(former)):
                if service.revision != former:
                    self._cluster.update(name, former)
                self._wait(name, former)
            self._cluster.forget(service, [FORMER])
        services = self._services()
        self._take_back_commands(services[HEAD])
        self._notes.finish(services)

    def _take_back_commands(self, head: Service) -> None:
        """Commands such as `recover` must not run in a version that failed."""
        self._commands(str(self._cluster.main_container(head.revision)["image"]), register=True)

    def clean_up(self) -> None:
        """Remove the notes of a run that was done, and was killed before it had removed them.

        Raises:
            DeployError, AwsError: as in `touched`.
        """
        services = self._cluster_services()
        if is_finished(services):
            self._notes.clean_up(services)

    def _bring_image(self) -> None:
        image = self._release.image
        if self._is_pushed(image):
            self._reporter.notice(f"{image} is pushed already")
        elif self._push is None:
            raise self._not_pushed()
        else:
            with self._reporter.step("image", image):
                self._push()
        # The image that runs now is the one to go back to.
        running = str(self._cluster.main_container(self._services()[HEAD].revision)["image"])
        for each in dict.fromkeys((running, image)):
            if each == image or self._is_pushed(each):
                self._keep(each)

    def _require_pushed_nats(self) -> None:
        if self._release.nats_tag and not self._is_pushed(self._release.nats_image):
            raise DeployError(f"{self._release.nats_image} is not pushed: docs/deploy-aws.md, step 4")

    def _not_pushed(self) -> DeployError:
        return DeployError(
            f"{self._release.image} is not pushed. Without --tag and --no-build it is built from what is checked out."
        )

    def _begin(self) -> None:
        """Note what is begun, and which alarms rang before it; a run that goes on takes what the first one noted."""
        self.clean_up()
        head = self._services()[HEAD]
        self._require_same(head)
        if RELEASE in head.notes:
            self._alarms.before = head.notes.get(RINGING, "").split()
            self._notes.take({})
            return
        self._alarms.before = self._alarms.ringing()
        if self._alarms.before:
            self._reporter.notice(f"Rings already, and does not count: {', '.join(self._alarms.before)}")
        self._notes.take(
            {RELEASE: self._release.tag, NATS: self._release.nats_tag, RINGING: " ".join(self._alarms.before)}
        )

    def _migrate(self, plan: Plan) -> None:
        """Migrations that have run do nothing when they run again, so a run that goes on begins with them too."""
        try:
            self._cluster.run_once(
                plan.migration,
                # Where the archiver is: the same subnets and security group.
                self._services()["archiver"].network,
                token=str(uuid.uuid4()),
                within_s=self._times.migrate_s,
                look=_unseen,
            )
        except DeployError as error:
            self._notes.require_own()
            so = "no service was touched"
            if self.touched():
                so = "what an earlier run had begun stays as it is (--roll-back goes back)"
            else:
                try:
                    self._take_back()
                except AwsError as also:
                    so += f", but one-shot commands would run {short(plan.migration)} (--roll-back mends it): {also}"
            raise DeployError(
                f"the migrations failed, so {so}: {error}\n"
                f"    aws logs tail /{self._release.name}/{ONE_SHOT} --since 30m"
            ) from error

    def _change(self, name: str, revision: str) -> None:
        self._notes.require_own()
        service = self._cluster.service(name)
        # The note first: if this run is killed in between, the next one knows what ran here. Once: a run that goes on
        # must not take the new revision for the former one.
        if FORMER not in service.notes:
            self._cluster.note(service, {FORMER: short(service.revision)})
        if service.revision != revision:
            self._cluster.update(name, revision)
        self._wait(name, revision, self._alarms.require_silence)

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
        # This look must be answered, whereas those above ignored failed ones.
        without = self._alarms.without_data()
        if without:
            self._reporter.notice(f"Without data, so no proof either way: {', '.join(without)}")

    def _services(self) -> dict[str, Service]:
        return as_if_cleaned_up(self._cluster_services())

    def _cluster_services(self) -> dict[str, Service]:
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
