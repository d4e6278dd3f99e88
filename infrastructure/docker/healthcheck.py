"""The image's health check: asks the service of this container. Exit status 0 or 1, and a line that says why.

``python -m infrastructure.docker.healthcheck [--ready]``. The command line of process 1 names the service, so one check
serves the whole image. ``--ready`` asks whether the service can work, not only whether it is alive.

Standard library only and no HTTP client: it runs every few seconds beside the service, on the same share of a CPU.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from infrastructure.docker.programs import PROGRAMS

TIMEOUT_S: Final = 4.0
_ANSWER_BYTES_MAX: Final = 16 * 1024


def running_program(command_line: Sequence[str]) -> str | None:
    """The name of the service that a command line runs, with or without an init process or the entry point before it.

    >>> running_program(["/sbin/docker-init", "--", "python", "-m", "api_gateway"])
    'api_gateway'
    """
    for argument in command_line:
        if argument in PROGRAMS and PROGRAMS[argument].port:
            return argument
    return None


def port_of(name: str, environment: Mapping[str, str]) -> int:
    """The port on which the service answers."""
    program = PROGRAMS[name]
    return int(environment.get(program.port_setting) or program.port)


def ask(port: int, path: str, *, host: str = "127.0.0.1", timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Status and body of a GET.

    Raises:
        OSError: no answer, within ``timeout_s`` for each step.
        ValueError: the answer is not HTTP.
    """
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _ANSWER_BYTES_MAX and (chunk := connection.recv(4_096)):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise ValueError("no HTTP answer")
    return int(words[1]), body.decode(errors="replace").strip()


def check(name: str | None, environment: Mapping[str, str], *, ready: bool) -> tuple[bool, str]:
    """Whether the service is healthy, and a line about it."""
    if name is None:
        return False, "process 1 is none of the services"
    path = "/ready" if ready else "/health"
    try:
        status, body = ask(port_of(name, environment), path)
    except (OSError, ValueError) as error:
        return False, f"{name} {path}: {str(error) or type(error).__name__}"
    return status == 200, f"{name} {path}: {status} {body}"


def main() -> None:
    """Check process 1 of this container."""
    command_line = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    well, line = check(running_program(command_line), os.environ, ready="--ready" in sys.argv[1:])
    sys.stdout.write(line + "\n")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
