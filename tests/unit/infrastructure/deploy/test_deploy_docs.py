"""Commands of docs/deploy-aws.md that a shell could take apart, run against programs that only say what they got."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "deploy-aws.md").read_text()

# What the outputs `one_shot` and `operator` of infrastructure/terraform/envs looks like.
ONE_SHOT = "aws ecs run-task --network-configuration 'awsvpcConfiguration={subnets=[a,b],assignPublicIp=DISABLED}'"
SAYS_ITS_ARGUMENTS = """#!/bin/sh
printf '%s\\n' "$@"
"""
COMMANDS = re.findall(r'^eval "\$\(terraform output -raw (?:one_shot|operator)\).*$', PAGE, re.MULTILINE)


def install(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_one_shot_task_gets_its_arguments_whole(tmp_path: Path, command: str) -> None:
    install(tmp_path, "terraform", f'#!/bin/sh\nprintf %s "{ONE_SHOT}"\n')
    install(tmp_path, "aws", SAYS_ITS_ARGUMENTS)
    ended = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 0, ended.stderr
    arguments = ended.stdout.splitlines()
    assert arguments[:2] == ["ecs", "run-task"]
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    assert options.pop("--network-configuration") == "awsvpcConfiguration={subnets=[a,b],assignPublicIp=DISABLED}"
    assert options in (
        {"--query": "tasks[0].taskArn", "--output": "text"},
        {"--overrides": "containerOverrides=[{name=operator,command=[recover]}]"},
    )
