"""One child process: what to run, whether it is ready, and how to end it and everything that it started."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from infrastructure.local.errors import ProcessFailed
from infrastructure.local.servers.probes import Probe

_POLL_INTERVAL_S = 0.05
_KILL_WAIT_S = 10.0
_LOG_TAIL_LINES = 15
LOG_BYTES_MAX = 20 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class ProcessSpec:
    """How to run one server or service."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready: Probe
    address: str
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    ready_timeout_s: float = 30.0
    user: int | None = None
    group: int | None = None
    # Called before each start.
    prepare: Callable[[], object] | None = None


class Child(Protocol):
    """What is needed of a started process; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal; nothing happens when the process has ended."""


Launcher = Callable[[ProcessSpec, int], Child]
"""Starts a process in a session of its own, with its output at a file descriptor. Raises OSError."""


def launch(spec: ProcessSpec, output: int) -> Child:
    """Start a program."""
    return subprocess.Popen(
        spec.argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(spec.env),
        cwd=spec.cwd,
        start_new_session=True,
        user=spec.user,
        group=spec.group,
        extra_groups=None if spec.user is None else [],
    )


class ManagedProcess:
    """A child in a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor."""

    def __init__(self, spec: ProcessSpec, launcher: Launcher = launch) -> None:
        self.spec = spec
        self._launcher = launcher
        self.restarts = 0
        # False once it was stopped on purpose: then the supervisor must not restart it.
        self.wanted = False
        self.ready_at: float | None = None
        self._child: Child | None = None
        self._create_time: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the child runs, else None."""
        return self._child.pid if self._child is not None and self.is_running else None

    @property
    def create_time(self) -> float | None:
        """When the child was created (seconds since 1970): with the pid, this identifies one process for good."""
        return self._create_time

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_text(self) -> str:
        """How the child ended, in words."""
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return "has not ended"
        if code < 0:
            return f"was ended by {_signal_name(-code)}"
        return f"ended with exit code {code}"

    def spawn(self) -> None:
        """Start the child, and append its output to its log. ProcessFailed if it does not start, or has no log."""
        self.ready_at = None
        self.wanted = True
        try:
            self._child = self._start_child()
        except OSError as error:
            raise ProcessFailed(self.spec.name, f"could not be started ({error})", self.spec.log, "") from error
        with contextlib.suppress(psutil.Error):
            self._create_time = psutil.Process(self._child.pid).create_time()

    def _start_child(self) -> Child:
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        keep_short(self.spec.log)
        if self.spec.prepare is not None:
            self.spec.prepare()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self.spec.log.open("ab") as log:
            log.write(f"{_start_mark(self.spec.name)}{now}\n".encode())
            log.flush()
            return self._launcher(self.spec, log.fileno())

    async def wait_ready(self) -> None:
        """Return once the probe says yes; ProcessFailed when the child ends first, or it takes too long."""
        deadline = time.monotonic() + self.spec.ready_timeout_s
        while True:
            if not self.is_running:
                raise ProcessFailed(self.spec.name, self.exit_text, self.spec.log, self.log_tail())
            # If another process has the port, it may answer the probe while our child fails because of it: look
            # again afterwards.
            readiness = await self.spec.ready()
            if readiness.ok and self.is_running:
                self.ready_at = time.time()
                return
            if time.monotonic() > deadline:
                reason = f"was not ready after {self.spec.ready_timeout_s:g} s ({readiness.detail})"
                raise ProcessFailed(self.spec.name, reason, self.spec.log, self.log_tail())
            await asyncio.sleep(_POLL_INTERVAL_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child itself; nothing happens when it has ended."""
        if self._child is not None:
            self._child.send_signal(number)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the child has ended; False when it has not within `timeout_s`."""
        return await poll_until(lambda: not self.is_running, timeout_s)

    async def stop(self, in_a_hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask the child to end, wait for that, then end it by force.

        The wait is `stop_timeout_s` long, and ends early once `in_a_hurry()`.
        """
        self.wanted = False
        if self._child is None or not self.is_running:
            return
        family = family_of(self._child.pid)
        self.send(signal.SIGCONT)  # a child that a test has suspended cannot handle other signals
        self.send(self.spec.stop_signal)
        await poll_until(lambda: not self.is_running or in_a_hurry(), self.spec.stop_timeout_s)
        if self.is_running:
            family += family_of(self._child.pid)
            self.send(signal.SIGKILL)
            await self.wait(_KILL_WAIT_S)
        await end_by_force(family)

    def log_tail(self) -> str:
        """The last lines of the log since the last start."""
        text = log_tail(self.spec.log, _LOG_TAIL_LINES)
        _, mark, after = text.rpartition(_start_mark(self.spec.name))
        return after.partition("\n")[2] if mark else text


def _signal_name(number: int) -> str:
    # Of the real-time signals only the first and the last have names.
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _start_mark(name: str) -> str:
    return f"--- {name} starts at "


def family_of(pid: int) -> list[psutil.Process]:
    """The descendants of a process, not itself: PostgreSQL and pre-forking services have some."""
    if _is_childless(pid):
        return []
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _is_childless(pid: int) -> bool:
    """Whether Linux says so: psutil would look at every process of the machine."""
    try:
        children = [path.read_bytes() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return False
    return bool(children) and not any(children)


async def end_by_force(processes: list[psutil.Process], patience_s: float = 1.0) -> None:
    """Give these processes `patience_s` to end by themselves, then SIGKILL them, and wait until they are
    gone.

    The default suits descendants, which follow their parent: PostgreSQL's end on losing the postmaster.
    """
    alive = await _outlive(processes, patience_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    await _outlive(alive, _KILL_WAIT_S)


async def _outlive(processes: list[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Wait until all have ended, at most `patience_s`. Returns those that have not."""
    await poll_until(lambda: not any(_is_alive(process) for process in processes), patience_s)
    return [process for process in processes if _is_alive(process)]


async def poll_until(condition: Callable[[], bool], timeout_s: float, every_s: float = _POLL_INTERVAL_S) -> bool:
    """Look every `every_s` until `condition()` holds; False when it does not within `timeout_s`.

    This polls rather than waits: the end of a process that is not our child cannot be waited for, and waiting for a
    child would tie it to the event loop that started it.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(every_s)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def log_tail(log: Path, lines_max: int) -> str:
    """The last lines of a log file; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(deque(lines, maxlen=lines_max))


def keep_short(log: Path) -> None:
    """Past 20 MB, copy a log to `.log.1`, in place of an older copy, and empty it.

    A running writer goes on at the new end, since it has the file open for appending. What it writes between copying
    and emptying is lost: a line or so in 20 MB.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


async def all_or_error(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all at once. The first error cancels the others, and is raised once they have cleaned up."""
    tasks = [asyncio.ensure_future(each) for each in work]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # Cancel each once and wait as long as it takes: a second cancel would interrupt its clean-up.
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
