"""What was used between two times, from looks at processes."""

from __future__ import annotations

import pytest

from load_tests.experiments.common.results import Use
from load_tests.experiments.common.sampling import GENERATOR, Look, Samples, measured


def samples(looks: int = 5) -> Samples:
    """Once a second from 100 on: Redis uses half a core, the generator one in two processes, others a quarter."""
    found = Samples()
    for number in range(looks):
        found.at_s.append(100.0 + number)
        found.busy_s.append(1.75 * number)
        found.looks.append(
            {
                "redis": Look({1: 0.5 * number}, 10_000_000 * (number + 1)),
                GENERATOR: Look({2: 0.75 * number, 3: 0.25 * number}, 1_000_000),
            }
        )
    return found


def test_cpu_is_that_of_the_time_and_memory_the_most_in_it() -> None:
    found = measured(samples(), 101.0, 103.0, 2)
    assert found.components == {"redis": Use(0.5, 0.5, 40.0)}
    assert found.generator == Use(1.0, 0.75, 1.0, 2)
    assert (found.share, found.busy, found.others) == (0.667, 0.875, 0.25)


@pytest.mark.parametrize(("start_s", "end_s"), [(101.2, 101.4), (99.0, 99.5), (104.2, 109.0), (101.9, 102.1)])
def test_a_time_with_fewer_than_two_looks_takes_those_around_it(start_s: float, end_s: float) -> None:
    assert measured(samples(), start_s, end_s, 2).components["redis"].cpu == 0.5


def test_a_process_that_began_meanwhile_counts_from_its_beginning() -> None:
    found = samples()
    found.looks[3]["redis"].cpu_s[9] = 1.0
    assert measured(found, 101.0, 103.0, 2).components["redis"] == Use(1.0, 0.5, 40.0, 2)


def test_a_process_that_ended_meanwhile_counts_until_its_end() -> None:
    found = samples()
    for look in found.looks[3:]:
        look[GENERATOR] = Look({}, 0)
    assert measured(found, 101.0, 103.0, 2).generator == Use(0.5, 0.375, 1.0, 2)


@pytest.mark.parametrize("looks", [0, 1])
def test_without_two_looks_nothing_is_known(looks: int) -> None:
    found = measured(samples(looks), 0.0, 200.0, 2)
    assert (found.components, found.generator, found.busy) == ({}, None, 0.0)
