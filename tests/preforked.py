"""Services of test stacks, and commands, forked from a process that has loaded their libraries already.

A Python service spends most of its start on loading libraries and our code, and a run of the tests starts several
hundred. Here a process loads both once and forks. Each fork loads the modules of `PER_PROCESS` anew, which make
something of their own when they are loaded. What a fork runs is the same as after `python -P -m <module>`: a process
of its own, in a session of its own, to be killed or suspended like any other. A test of the start itself starts the
service as a program.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from infrastructure.local.cache_nodes import CACHE_NODE
from infrastructure.local.processes import Child, ProcessSpec, launch, poll_until
from infrastructure.local.services import ALL_SERVICES

_LIBRARIES: Final = (
    "asyncpg",
    "click",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "fastapi.openapi.utils",
    "httptools",
    "jwt",
    "msgspec",
    "nats.js.api",
    "prometheus_client",
    "pydantic_settings",
    "pydantic.v1",
    "redis.asyncio",
    "starlette.middleware.cors",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvloop",
    "websockets",
)
_OURS: Final = (
    "api_gateway.main",
    "archival_worker.main",
    "broadcast_service.main",
    "cache_node.main",
)
PER_PROCESS: Final = {"shared.crash_points"}
"""Modules that each fork loads anew: they read from its environment at which point it is to die."""
_REQUEST_BYTES_MAX: Final = 128 * 1024
_RUN_TIMEOUT_S: Final = 240.0
# Beginnings of variables that are read when a process starts. A fork begins after that, so it cannot have other ones.
_READ_AT_START: Final = ("PYTHON", "LD_", "MALLOC_")


def launch_service(spec: ProcessSpec, output: int) -> Child:
    """Start a service by a fork, and anything else as a program."""
    is_service = spec.argv[:3] == (sys.executable, "-P", "-m") and spec.argv[3] in (*ALL_SERVICES, CACHE_NODE)
    if (
        not is_service
        or spec.user is not None
        or spec.cwd is not None
        or _read_at_start(spec.env) != _read_at_start(_environment())
    ):
        return launch(spec, output)
    return _forker().fork(spec.argv[3:], spec.env, output)


async def run_forked(*argv: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Run `python -P -m <argv>` to its end by a fork; its exit code, and what it said on both outputs."""
    with tempfile.TemporaryFile() as said:
        return await _run(argv, env, said), _text_of(said)


async def run_forked_apart(*argv: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The same, with what it said on each of both outputs."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        code = await _run(argv, env, output, errors)
        return subprocess.CompletedProcess(argv, code, _text_of(output), _text_of(errors))


async def _run(argv: Sequence[str], env: Mapping[str, str], *outputs: IO[bytes]) -> int:
    child = _forker().fork(argv, {**env, "PYTHONUNBUFFERED": "1"}, *(output.fileno() for output in outputs))
    try:
        await poll_until(lambda: child.poll() is not None, _RUN_TIMEOUT_S)
    finally:
        child.send_signal(signal.SIGKILL)
    code = child.poll()
    if code is None:
        said = "".join(map(_text_of, outputs))
        raise TimeoutError(f"{argv} did not end within {_RUN_TIMEOUT_S:g} s:\n{said}")
    return code


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


class _Forker:
    """The process that forks. It ends when this one has ended; its forks do not."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._lock = threading.Lock()
        with theirs:
            number = theirs.fileno()
            argv = (sys.executable, "-P", "-m", "tests.preforked", str(number))
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, env=_environment(), pass_fds=[number], start_new_session=True
            )

    def fork(self, argv: Sequence[str], env: Mapping[str, str], *outputs: int) -> Child:
        """With one output for both, or with one for what it says and one for errors."""
        return _Fork(int(self._ask({"argv": argv, "env": dict(env), "cwd": str(Path.cwd())}, [*outputs])), self)

    def poll(self, pid: int) -> int | None:
        return self._ask({"poll": pid})  # type: ignore[no-any-return]

    def _ask(self, request: dict[str, object], files: list[int] | None = None) -> Any:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files or [])
            answer = self._socket.recv(_REQUEST_BYTES_MAX)
        if not answer:
            raise OSError(f"the process that forks services has ended with {self._process.wait()}")
        return json.loads(answer)


@functools.cache
def _forker() -> _Forker:
    return _Forker()


class _Fork:
    """A child of the process that forks."""

    def __init__(self, pid: int, forker: _Forker) -> None:
        self.pid = pid
        self._forker = forker
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code. The pid belongs to it until this was told."""
        if self._code is None:
            self._code = self._forker.poll(self.pid)
        return self._code

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


# ---------------------------------------------------------------------- in the process that forks


def _serve(requests: socket.socket) -> list[str] | None:
    """Answer requests. Returns in each fork what it has to run, and None once nobody can ask any more."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 2)
        if not data:
            return None
        request = json.loads(data)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            requests.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
            continue
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(request, files)
            return list(request["argv"])
        for file in files:
            os.close(file)
        requests.send(json.dumps(pid).encode())


def _become(request: dict[str, Any], outputs: list[int]) -> None:
    os.setsid()
    os.dup2(outputs[0], 1)
    os.dup2(outputs[-1], 2)
    for output in outputs:
        os.close(output)
    os.chdir(request["cwd"])
    _take(request["env"])


def _take(environment: Mapping[str, str]) -> None:
    """Have this environment, as if the process had begun with it."""
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for name in PER_PROCESS:
        # In place: what imported a function of the module calls that one, which finds the new values.
        importlib.reload(sys.modules[name])


class _Run:
    """`subprocess.run` of a fork: a command that runs a service to its end runs it by a fork, too."""

    def __init__(self, run: Callable[..., subprocess.CompletedProcess[Any]]) -> None:
        self._run = run

    def __call__(self, argv: Any, *more: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        if (
            more
            or options.keys() != {"env"}
            or tuple(argv[:3]) != (sys.executable, "-P", "-m")
            or argv[3] not in ALL_SERVICES
            or _read_at_start(options["env"]) != _read_at_start(os.environ)
            or threading.active_count() > 1
        ):
            return self._run(argv, *more, **options)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _take(options["env"])
            _run_and_exit(argv[3:])
        _, status = os.waitpid(pid, 0)
        return subprocess.CompletedProcess(argv, os.waitstatus_to_exitcode(status))


def _run_and_exit(argv: list[str]) -> NoReturn:
    """Run the module and end with its exit code. Not by returning: below are the frames of another program."""
    end = _End()
    try:
        end.run(argv)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        end.now()
        os._exit(1)


class _End:
    """How a fork ends: without taking apart what it has from before it was forked, which would take six times as long
    as the rest of a short one.

    Threads, handlers of the exit and collected objects have had their turn.
    """

    def __init__(self) -> None:
        self._code: int | None = None

    def run(self, argv: list[str]) -> None:
        sys.argv = argv
        try:
            runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
            self._code = 0
        except SystemExit as ended:
            self._code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            raise
        except Exception:
            self._code = 1
            raise

    def now(self) -> None:
        """End, unless the interpreter itself is to say how, as after an interrupt."""
        if self._code is None:
            return
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self._code & 0xFF)


def load() -> None:
    """Load what forks need."""
    for name in (*_LIBRARIES, *_OURS, *PER_PROCESS):
        importlib.import_module(name)


def _main(number: int) -> None:
    end = _End()
    # The first handler is called last: before it the one that was registered when `logging` was imported.
    atexit.unregister(logging.shutdown)
    atexit.register(end.now)
    atexit.register(logging.shutdown)
    load()
    assert threading.active_count() == 1, "a fork has one thread: no other may hold a lock now"
    gc.collect()
    # What is loaded stays: no fork looks through it for cycles, when it ends either, and it stays one copy in memory.
    gc.freeze()
    with socket.socket(fileno=number) as requests:
        argv = _serve(requests)
    if argv is not None:
        subprocess.run = _Run(subprocess.run)  # type: ignore[assignment]
        end.run(argv)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        _main(int(sys.argv[1]))
