"""What runs of `bidding deploy` know of each other: tags on the services, which stay when a run is killed.

The tags of the service HEAD say what is being deployed, and by which run. Another run may take a deployment over, on
another machine, after the first one has died or seemed to. Tags cannot be compared and set in one step, so a run looks
at its tag again before each change that it makes:

1. Run A and run B both see that nothing is being deployed.
2. A writes its tag, and B writes its own over it.
3. A looks again, finds B's, and stops without changing or taking back anything.

At the end of a deployment one tag says that it has ended, before the others are removed. So a run that is killed while
it removes them does not leave a deployment that looks unfinished.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from infrastructure.deploy.ecs import Cluster, Service
from infrastructure.deploy.errors import Overtaken

HEAD: Final = "gateway"
"""The service on which the deployment itself is noted."""

RELEASE, NATS, RINGING, RUN, FINISHED = (
    f"bidding:{name}" for name in ("deploying", "nats", "ringing", "run", "finished")
)
"""On HEAD: what is being deployed, with which image of NATS, which alarms rang before, whose run it is, and that all is
done."""
FORMER: Final = "bidding:former"
"""On each service that was touched: what it ran before."""

VALUE_CHARACTERS_MAX: Final = 256
"""The bound of AWS for the value of a tag."""


class Notes:
    """The notes of one run."""

    def __init__(self, cluster: Cluster, *, looks_every_s: float) -> None:
        self._cluster = cluster
        self._looks_every_s = looks_every_s
        self._run = uuid.uuid4().hex

    def take(self, notes: Mapping[str, str]) -> None:
        """Write these on HEAD, and that this run goes on with the deployment from now on.

        Raises:
            Overtaken: another run did the same a moment later.
            AwsError: ECS cannot be asked.
        """
        head = self._cluster.service(HEAD)
        self._cluster.note(
            head, {**{key: value[:VALUE_CHARACTERS_MAX] for key, value in notes.items()}, RUN: self._run}
        )
        # After this pause, a run that looked before these tags were written has written its own.
        time.sleep(self._looks_every_s)
        self.require_own()

    def require_own(self) -> None:
        """Raises Overtaken where another run goes on with the deployment."""
        if self._cluster.service(HEAD).notes.get(RUN) != self._run:
            raise Overtaken(
                "another run of `bidding deploy` has taken over here: this one stops, and leaves all as it is"
            )

    def finish(self, services: Mapping[str, Service]) -> None:
        """Remove all notes: everything is deployed, or everything is back."""
        self._cluster.note(services[HEAD], {FINISHED: self._run})
        self.clean_up(services)

    def clean_up(self, services: Mapping[str, Service]) -> None:
        """The second half of `finish`. If a run was killed before it, the next run does it."""
        for service in services.values():
            if FORMER in service.notes:
                self._cluster.forget(service, [FORMER])
        self._cluster.forget(services[HEAD], [RELEASE, NATS, RINGING, RUN, FINISHED])


def is_finished(services: Mapping[str, Service]) -> bool:
    """Whether a run has said that all is done, and was killed before its notes were gone."""
    return FINISHED in services[HEAD].notes


def as_if_cleaned_up(services: Mapping[str, Service]) -> dict[str, Service]:
    """The services as they will be after `clean_up`."""
    if not is_finished(services):
        return dict(services)
    ours = {RELEASE, NATS, RINGING, RUN, FINISHED, FORMER}
    return {
        name: replace(each, notes={key: value for key, value in each.notes.items() if key not in ours})
        for name, each in services.items()
    }
