"""Log lines of the services: JSON for machines, text for people, and nothing in either that opens a door.

The standard library's logging with a formatter each. What a line is about (request, item, bid, principal, trace) is
said by ``extra=about(…)`` where it is written, by the request that is being answered (:data:`request_facts`), and by
the trace to which it belongs (:data:`shared.tracing.spans.trace_of_task`).
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from typing_extensions import override

from shared.tracing.spans import trace_of_task

LogFormat = Literal["auto", "json", "text"]
"""``auto``: text on a terminal, else JSON."""

STACK_CHARACTERS_MAX: Final = 8_000
"""How much of a traceback is logged: its end, which names what went wrong."""
_MESSAGE_CHARACTERS_MAX: Final = 4_000
_FACT_CHARACTERS_MAX: Final = 128
_FACTS: Final = ("request", "item", "bid", "principal", "trace_id")

request_facts: ContextVar[dict[str, str] | None] = ContextVar("request_facts", default=None)
"""What is known of the request that the running task answers; by the names in ``_FACTS``."""

_SECRETS: Final = (
    # A JWT, wherever it stands; and whatever else was sent as one.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "[token]"),
    (re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}"), r"\1 [token]"),
    # An API key.
    (re.compile(r"\bbk_[A-Za-z0-9_]{16,}"), "[api key]"),
    # The password in an address.
    (re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@"), r"\1:[password]@"),
    # A value that an address or a header names as a secret.
    (re.compile(r"(?i)\b(token|secret|password|api[_-]?key)=[^\s&,;'\")]+"), r"\1=[secret]"),
)


def set_up_logging(level: str, log_format: LogFormat) -> None:
    """Log to stderr, in this format, from this level on. Call it once, in ``main``."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else TextLines())
    logging.basicConfig(level=level, handlers=[handler])


def about(
    *, item: str = "", bid: str = "", principal: str = "", request: str = "", trace_id: str = ""
) -> dict[str, str]:
    """``extra`` for a line of the log; what is empty is left out."""
    facts = {"request": request, "item": item, "bid": bid, "principal": principal, "trace_id": trace_id}
    return {f"about_{name}": value for name, value in facts.items() if value}


def without_secrets(text: str) -> str:
    """The text with what looks like a token or a password taken out. Whoever writes a line leaves them out in the first
    place; this is for errors that quote what they were given."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _facts_of(record: logging.LogRecord) -> dict[str, str]:
    known = {**(request_facts.get() or {}), "trace_id": trace_of_task.get()}
    said = {name: getattr(record, f"about_{name}", None) or known.get(name) for name in _FACTS}
    return {name: value[:_FACT_CHARACTERS_MAX] for name, value in said.items() if value}


def _message_of(record: logging.LogRecord) -> str:
    return without_secrets(record.getMessage())[:_MESSAGE_CHARACTERS_MAX]


def _stack_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return without_secrets("\n".join(parts))[-STACK_CHARACTERS_MAX:]


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, what it is about, and ``stack``."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message_of(record),
            **_facts_of(record),
        }
        if stack := _stack_of(self, record):
            line["stack"] = stack
        # A lone surrogate, of a path that is no UTF-8, has no JSON.
        return msgspec.json.encode({name: _encodable(value) for name, value in line.items()}).decode()


class TextLines(logging.Formatter):
    """As people read it: time, level, logger, message, and what it is about; a traceback on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {_message_of(record)}"
        if facts := _facts_of(record):
            line += f" [{' '.join(f'{name}={value}' for name, value in facts.items())}]"
        # A line break in what a client sent must not make a line that nobody wrote.
        line = line.replace("\r", "\\r").replace("\n", "\\n")
        stack = _stack_of(self, record)
        return f"{line}\n{stack}" if stack else line


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
