"""The command lines of the pages: each is executed by a test, or there is a reason why not.

Commands stand in fenced blocks without a language. A block that is no shell (a picture, an answer, settings) is told by
how it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

NO_SHELL: Final = (
    "  Open ",
    " bidder ",
    " reader ",
    "shared/ ",
    "error: ",
    "id: 1:4",
    "lot-1: ",
    "SELECT ",
    "open_catalogue ",
)
"""How blocks begin that are no commands."""

_BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_CELL: Final = re.compile(r"`(curl [^`]+)`")
_COMMENT: Final = re.compile(r"\s+#\s.*$")


class Documented(NamedTuple):
    """One command line of a page, continued lines joined, without its comment."""

    page: str
    text: str


def _lines(block: str) -> Iterator[str]:
    text = ""
    for line in block.splitlines():
        text += line if text.count("'") % 2 else _COMMENT.sub("", line)
        if text.endswith("\\"):
            text = text[:-1].rstrip() + " "
            continue
        # A text in quotes goes on.
        if text.count("'") % 2:
            text += "\n"
            continue
        stripped = text.strip()
        if stripped and not stripped.startswith("#"):
            yield stripped
        text = ""
    assert not text, f"a command without an end: {text}"


def documented() -> list[Documented]:
    """Every command line, in the order of the pages."""
    found: list[Documented] = []
    for page in PAGES:
        text = page.read_text()
        name = page.name
        for _, language, block in _BLOCK.findall(text):
            if language in ("", "sh", "bash") and not block.startswith(NO_SHELL):
                found += [Documented(name, line) for line in _lines(block)]
        if page.name == "README.md":
            found += [Documented(name, cell) for cell in _CELL.findall(text)]
    return found


EXECUTED: Final = {
    # Page and beginning of the command: executed by test_documented_commands.py on a running platform, in this order.
    "README.md": ("curl ",),
    "run-an-auction.md": ("export API", "curl ", "bidding "),
    "operations.md": (
        ".venv/lib/python3.",
        ".venv/bin/python -c",
        "bidding acts",
        "bidding audit",
        "bidding dead-letters list",
        "bidding retention",
    ),
}

ELSEWHERE: Final = {
    "make test": "CI runs it",
    "make test-quick": "a part of `make test`",
    "make lint types": "CI runs it",
    "make fix": "ruff, whose findings `make lint` checks",
    ".ci/run": "CI runs it",
    "make up": "tests/integration/stack/test_bidding_command.py runs `bidding up`",
    "make load": "tests/unit/load_tests, and the stacks that run the load run",
    "bidding up --cache-nodes": "tests/integration/cache_node starts nodes",
    "bidding cache ": "tests/integration/cache_node asks nodes; a platform without them has no such commands",
    "curl 'http://127.0.0.1:9999/": "tests/integration/cache_node asks the front end",
    "bidding recover": "tests/integration/loss executes it on a Redis that has lost something",
    "bidding dead-letters": "tests/integration/archive stores letters and retries them",
    "bidding down": "tests/integration/stack/test_bidding_command.py",
    "bidding up --detach": "tests/integration/stack/test_bidding_command.py",
    "bidding audit": "tests/integration/archive",
    "AUTH_MODE=jwt bidding up": "tests/integration/gateway/identity/test_access.py starts such a stack",
    "BIDDING_TOKEN=$(bidding token": "tests/integration/gateway/identity/test_access.py creates a seller's items",
    "TOKEN=$(bidding token": "tests/unit/infrastructure/test_signing_key.py",
    "bidding token ann --link": "tests/acceptance/signed_in/test_signing_in_a_browser.py opens such a link",
    "KEY=$(bidding api-keys": "tests/integration/gateway/identity/test_api_keys.py",
    "curl -X POST -H": "tests/integration/gateway/identity/test_api_keys.py",
    "bidding api-keys": "tests/integration/gateway/identity/test_api_keys.py",
    'curl -H "Authorization': "tests/integration/gateway/identity/test_access.py sends such bids",
    ".venv/bin/pip install -r requirements/container.lock": "what ran the tests has installed the extra",
    "OTEL_EXPORTER_OTLP_ENDPOINT=": "tests/integration/tracing starts such a platform",
    "bidding deploy-check": "tests/unit/infrastructure/deploy/test_deploy_check.py",
    "bidding deploy ": "tests/integration/aws/test_deploy.py",
}
"""Beginnings of commands that other tests execute."""

NOT_EXECUTED: Final = {
    "git clone": "there is no address yet",
    "cd ": "a change of the folder",
    "(cd ": "needs an account of AWS",
    "cp terraform.tfvars": "a copy to be edited",
    "make install-dev": "what ran the tests has done it",
    "aws ": "needs an account of AWS",
    "export ": "needs an account of AWS, or Docker",
    "terraform ": "needs an account of AWS; `make terraform` checks the configuration",
    "for ": "needs an account of AWS",
    "printf ": "needs an account of AWS",
    "done": "the end of a loop",
    "do": "a loop",
    "eval ": "needs an account of AWS",
    "docker": "needs Docker; tests/integration/stack/test_compose.py checks the file",
    "dc ": "needs Docker; tests/integration/stack/test_compose.py checks the file",
    "curl localhost": "needs the compose stack",
    "curl 'localhost": "needs the compose stack",
    "curl -X POST localhost": "needs the compose stack",
    "curl -sS $URL": "needs a deployment",
    'curl -sS "$URL': "needs a deployment",
    "curl -sSo /dev/null": "needs a deployment",
    "../../../../.venv/bin/python": "needs a deployment",
    ".venv/bin/locust": "needs a deployment",
    "python3 infrastructure/docker/make_env.py": "tests/unit/infrastructure/deploy/test_docker.py tests the module",
    "AWS_EMULATOR_IMAGE": "needs Docker and a token",
    "BIDDING_TEST_AWS": "needs the compose stack",
    "SOURCE_DATE_EPOCH": "needs Docker",
    "curl -N ": "an event stream has no end; tests/integration/feed/test_sse.py reads one",
    "redis-cli": "does not come with the packages",
    "tar ": "copies the folder of a stopped platform",
}
"""Beginnings of commands, and why no test executes them."""


def is_executed(command: Documented) -> bool:
    """Whether test_documented_commands.py executes it."""
    if command.text.startswith("curl -N "):
        return False
    return command.text.startswith(EXECUTED.get(command.page, ("\0",)))
