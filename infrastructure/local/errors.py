"""What can go wrong while starting, running and stopping the stack. Each error says what to do about it."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """The root of every error that the embedded stack raises on purpose; `str()` gives the text to show."""


class BinaryMissing(StackError):
    """A server's executable was not found, or is too old."""

    def __init__(self, server: str, hint: str) -> None:
        self.server = server
        super().__init__(f"No usable {server} was found.\n{hint}")


class PortInUse(StackError):
    """Another process listens on a port that the stack needs. Raised before anything is started."""

    def __init__(self, port: int, purpose: str, setting: str, holder: str | None) -> None:
        self.port = port
        self.setting = setting
        option = "--" + setting.lower().replace("_", "-")
        by = f" by {holder}" if holder else ""
        other = port + 1_000 if port + 1_000 <= 65_535 else port - 1_000
        super().__init__(
            f"Port {port}, wanted for {purpose}, is in use{by}.\n"
            f"Stop that process, or choose another port: {setting}={other} (or {option} {other})"
        )


class AlreadyRunning(StackError):
    """A running supervisor owns the data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        self.pid = pid
        who = f" (process {pid})" if pid else ""
        super().__init__(
            f"Already running{who} with its data in {data_dir}.\n"
            "See `bidding status`; `bidding down` stops it; --data-dir starts a second one beside it."
        )


class ProcessFailed(StackError):
    """A process ended, or did not become ready in time. Carries the end of its log."""

    def __init__(self, name: str, reason: str, log: Path, tail: str) -> None:
        self.name = name
        self.log = log
        shown = "".join(f"\n  | {line}" for line in tail.splitlines())
        super().__init__(f"{name} {reason}. Its log is {log}" + (f", and ends with:{shown}" if shown else ""))
