"""The file that an experiment leaves: what was measured, on what, with what. Reports are made of such files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from load_tests.experiments.common.gateway_clock import GatewayTime
from load_tests.generator.ledger import Latency

FORMAT: Final = 1

Kind = Literal["contention", "fanout", "resilience", "network", "environment"]
Backend = Literal["embedded", "compose", "emulator", "aws", "named"]
"""``named``: a platform of which nothing but its address is known."""


class ResultError(Exception):
    """The file is no result of an experiment; the message says why."""


class Machine(msgspec.Struct, frozen=True):
    """What the experiment ran on."""

    system: str
    processor: str
    cores: int
    memory_gb: float


class Use(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a component used while all users were at work.

    ``cpu`` is in cores (1.0: one of them all the time) over all its processes, ``hottest`` that of its busiest process;
    ``memory_mb`` is the most that it had.
    """

    cpu: float
    hottest: float
    memory_mb: float
    processes: int = 1


class Limit(msgspec.Struct, frozen=True):
    """What limited a step, by the rule of :mod:`load_tests.experiments.common.bottleneck`; ``why`` has its figures."""

    what: str
    why: str


class ProofSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was proved after a step. ``ok`` is None where it could not be, and ``statements`` say why."""

    ok: bool | None
    accepted: int = 0
    lost_updates: int = 0
    checks: int = 0
    highest: str = ""
    statements: list[str] = []


class LadderStep(msgspec.Struct, omit_defaults=True):
    """So many users at once. Rates are per second under full load; ``bids`` and the like count the whole step.

    ``made_by``: whose users they were. ``others_cpu``: cores that other programs of this machine used, so that a figure
    of a busy machine can be told.
    ``gateway_time``: of the whole step by the gateway's clock; ``latency`` is by that of the load.
    """

    users: int
    items: int
    strategy: str
    loop: Literal["closed", "open"]
    seconds: float
    bids_per_s: float
    accepted_per_s: float
    requests_per_s: float
    latency: Latency
    bids: int
    accepted: int
    unknown: int
    failures: int
    proof: ProofSummary
    limit: Limit
    offered_per_s: float = 0.0
    processes: int = 1
    made_by: Literal["locust", "plain"] = "locust"
    generator: Use | None = None
    generator_share: float = 0.0
    machine_busy: float = 0.0
    others_cpu: float = 0.0
    components: dict[str, Use] = {}
    retries: int = 0
    gateway_time: GatewayTime | None = None


class FanoutStep(msgspec.Struct, omit_defaults=True):
    """So many viewers of one item. Latencies are in milliseconds: ``sent_to_frame`` from the bidder's sending until the
    viewer has the frame, ``decided_to_frame`` from the decision. ``delivered`` of ``expected`` bids were told."""

    viewers: int
    slow: int
    rate: float
    seconds: float
    connect_s: float
    bids: int
    expected: int
    delivered: int
    at_newest: int
    went_back: int
    sent_to_frame: Latency
    decided_to_frame: Latency
    limit: Limit
    closed: dict[str, int] = {}
    generator: Use | None = None
    generator_share: float = 0.0
    machine_busy: float = 0.0
    others_cpu: float = 0.0
    components: dict[str, Use] = {}


class Phase(msgspec.Struct, omit_defaults=True):
    """One phase of a resilience run. ``checks`` maps what was checked to whether it held; ``codes`` counts answers that
    were neither accepted nor refused by the rules."""

    name: Literal["baseline", "failure", "recovery"]
    victim: str
    seconds: float
    bids: int
    bids_per_s: float
    latency: Latency
    failures: int
    frames: int
    codes: dict[str, int] = {}
    reads: int = 0
    reads_failed: int = 0
    read_latency: Latency = Latency()
    checks: dict[str, bool] = {}
    recovered_s: float | None = None
    proof: ProofSummary | None = None


class EnvironmentTest(msgspec.Struct, omit_defaults=True):
    """One property of an environment. ``values`` are what each repetition measured, in ``unit``; none where the backend
    cannot do it, and ``note`` says what it is instead."""

    name: str
    unit: str
    values: list[float] = []
    note: str = ""


class Result(msgspec.Struct, omit_defaults=True):
    """One run of one experiment."""

    kind: Kind
    backend: Backend
    place: str
    started_at: str
    machine: Machine
    versions: dict[str, str]
    commit: str
    settings: dict[str, Any]
    format: int = FORMAT
    complete: bool = False
    cut_off: str = ""
    ended_at: str = ""
    ladder: list[LadderStep] = []
    fanout: list[FanoutStep] = []
    phases: list[Phase] = []
    tests: list[EnvironmentTest] = []
    notes: list[str] = []


def write_result(path: Path, result: Result) -> None:
    """Replace the file in one step, so that a reader sees all of it or what was there before.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    draft.replace(path)


def read_result(path: Path) -> Result:
    """Read one.

    Raises:
        ResultError: there is none, or it is something else.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{path} is no result of `bidding experiment`: {error}") from error
    if result.format != FORMAT:
        raise ResultError(f"{path} has the format {result.format}; this version reads {FORMAT}")
    return result
