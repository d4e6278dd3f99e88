"""The project of an experiment stands beside the stack that is up, so no port may be that of both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml  # type: ignore[import-untyped]

from load_tests.experiments.environment.compose import ANY_PORT, PORTS, SERVICES

_COMPOSE: Final = Path(__file__).parents[4] / "docker-compose.localstack.yml"


def test_every_port_that_the_project_publishes_is_its_own() -> None:
    services = yaml.safe_load(_COMPOSE.read_text())["services"]
    started, waiting = set(), list(SERVICES)
    while waiting:
        name = waiting.pop()
        if name not in started:
            started.add(name)
            waiting += services[name].get("depends_on", {})
    published = " ".join(str(port) for name in started for port in services[name].get("ports", ()))
    assert set(re.findall(r"\$\{(\w+):-", published)) == {*PORTS, *ANY_PORT}
