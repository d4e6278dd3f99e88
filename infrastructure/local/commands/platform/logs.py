"""`bidding logs`: what the servers and services have written."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO

import click

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.processes import log_tail

_POLL_S = 0.2


class Follower:
    """Reads what is appended to a log, also after the log was replaced by a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open(at_end=True)

    def new_lines(self) -> list[str]:
        """The complete lines written since the last call."""
        if self._file is None:
            self._open(at_end=False)
        if self._file is None:
            return []
        # Ask before reading: the writer writes to the old file first, and to the new one only after that.
        replaced = self._was_replaced()
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        if replaced:
            if self._rest:
                lines.append(self._rest)
            self.close()
            self._rest = b""
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, *, at_end: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file = self._path.open("rb")
            self._file.seek(0, 2 if at_end else 0)

    def _was_replaced(self) -> bool:
        assert self._file is not None
        with contextlib.suppress(FileNotFoundError):
            now = self._path.stat()
            opened = os.fstat(self._file.fileno())
            return (now.st_ino, now.st_dev) != (opened.st_ino, opened.st_dev) or now.st_size < self._file.tell()
        return True


@click.command(epilog=examples("bidding logs", "bidding logs -f api_gateway redis"))
@click.argument("names", nargs=-1)
@data_dir_option
@click.option("--follow", "-f", is_flag=True, help="Keep showing new lines; Ctrl-C ends it.")
@click.option("--lines", "-n", default=30, show_default=True, type=click.IntRange(0, 10_000), help="Lines of each log.")
def logs(names: tuple[str, ...], data_dir: Path, follow: bool, lines: int) -> None:
    """Show the logs of all processes, or of those NAMED.

    Names are redis, nats, postgres, api_gateway and so on, as `bidding status` shows them.
    """
    folder = data_dir / "logs"
    known = sorted(path.stem for path in folder.glob("*.log"))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(f"No log of {', '.join(unknown)} in {folder}. There are: {', '.join(known) or 'none'}.")
    chosen = names or tuple(known)
    if not chosen:
        raise Failure(f"No logs in {folder} yet.")
    width = max(map(len, chosen))
    followers = {name: Follower(folder / f"{name}.log") for name in chosen}
    for name in chosen:
        _show(
            name,
            log_tail(folder / f"{name}.log", lines).splitlines() if lines else [],
            width,
            len(chosen) > 1,
        )
    try:
        while follow:
            for name, follower in followers.items():
                _show(name, follower.new_lines(), width, len(chosen) > 1)
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        pass
    finally:
        for follower in followers.values():
            follower.close()


def _show(name: str, lines: list[str], width: int, with_name: bool) -> None:
    for line in lines:
        click.echo(f"{name:<{width}} | {line}" if with_name else line)
