"""What we override or touch inside other libraries: the table of decision 0013, held against what is installed.

An upgrade that moves one of these names fails here, and not in a connection that nobody closes.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

import click
import nats.aio.client
import pytest
import redis.asyncio.connection
import uvicorn
from httptools import HttpRequestParser
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.server import ServerProtocol

from api_gateway.bid_socket.protocol import BidSocket
from api_gateway.routes.images import _ImageInPieces
from archival_worker.__main__ import _LazyGroup
from archival_worker.http import HttpServer
from broadcast_service.endpoints.sse import EventStream
from broadcast_service.main import FeedServer
from broadcast_service.transport.streams import FeedHttpProtocol
from infrastructure.local.cli import LazyGroup
from infrastructure.local.commands.identity.tokens import _Tokens
from load_tests.experiments.command import _Experiments
from shared.clients import cancellation
from shared.clients import nats as our_nats
from shared.clients.cluster.client import ClusterClient
from shared.clients.cluster.pipeline import ClusterPipeline
from shared.http.pieces import InPieces
from shared.http.protocols import turned
from shared.http.protocols.bounded import BoundedHttpProtocol
from shared.http.protocols.direct import DirectHttpProtocol
from shared.http.protocols.websockets import DirectWebSocket
from shared.http.sockets import ListeningServer
from tests.unit.test_layout import PRODUCT

ROOT = Path(__file__).parents[2]
OF_PYTHON = {"_abc_impl", "_is_protocol"}
"""What Python gives each class of its own, if abstract classes and protocols are among those that it extends."""
RECORD = (ROOT / "docs/decisions/0013-dependencies.md").read_text()


@dataclass(frozen=True)
class Touched:
    """One class of a library.

    Attributes:
        package: the distribution, as in pyproject.toml; empty for the standard library.
        ours: what extends it.
        uses: names that are read, set or called, beside those that are marked with ``@override``; split by blanks.
        calls: ``caller: name``: a function of the library that must go on to use a name, or what is overridden is
            never reached.
    """

    package: str
    theirs: type
    ours: tuple[type, ...] = ()
    uses: str = ""
    calls: dict[str, str] = field(default_factory=dict)


TABLE = (
    Touched(
        "uvicorn",
        HttpToolsProtocol,
        (turned.TurnedHttpProtocol, BoundedHttpProtocol, FeedHttpProtocol, DirectHttpProtocol),
        """_start_asgi_task app_state connections cycle expect_100_continue flow headers logger loop parser pipeline
        scope server_state timeout_keep_alive transport url""",
        {
            "data_received": "handle_websocket_upgrade",
            "on_response_complete": "timeout_keep_alive_handler",
            "on_headers_complete": "on_response_complete",
            "_unset_keepalive_if_required": "timeout_keep_alive_task",
        },
    ),
    Touched(
        "uvicorn",
        RequestResponseCycle,
        (),
        "body disconnected keep_alive message_event more_body response_complete response_started",
    ),
    Touched("uvicorn", FlowControl, (turned.Flow,), "write_paused"),
    Touched(
        "uvicorn",
        WebSocketsSansIOProtocol,
        (DirectWebSocket, BidSocket),
        """app close_sent close_timer conn curr_msg_data_type disconnected frames handshake_complete logger loop
        pending_ping_payload queue receive request response scope send send_500_response transport
        writable""",
        {
            "handle_connect": "run_asgi",
            "handle_events": "handle_ping",
            "handle_text": "send_receive_event_to_app",
            "handle_bytes": "send_receive_event_to_app",
            "handle_cont": "send_receive_event_to_app",
            "data_received": "handle_parser_exception",
            "send": "start_keepalive",
            "connection_lost": "close_timer",
        },
    ),
    Touched(
        "uvicorn",
        uvicorn.Server,
        (ListeningServer, FeedServer, HttpServer),
        "lifespan on_tick servers should_exit",
        {"serve": "capture_signals", "_serve": "main_loop shutdown", "capture_signals": "handle_exit"},
    ),
    Touched(
        "nats-py",
        Client,
        (our_nats._Client,),
        "_transport",
        {"_process_op_err": "_attempt_reconnect", "_attempt_reconnect": "_connect_to_server"},
    ),
    Touched("nats-py", TcpTransport, (), "_io_writer"),
    Touched(
        "redis",
        AbstractConnection,
        (),
        """_reader connect disconnect is_connected on_connect read_response redis_connect_func send_command
        send_packed_command""",
        {"disconnect": "_reader"},
    ),
    Touched("redis", BlockingConnectionPool, (), "make_connection"),
    Touched(
        "redis",
        Redis,
        (ClusterClient,),
        "connection_pool response_callbacks",
        {"hgetall": "execute_command", "evalsha": "_evalsha", "_evalsha": "execute_command"},
    ),
    Touched(
        "redis",
        Pipeline,
        (ClusterPipeline,),
        "command_stack is_transaction",
        {
            "execute_command": "pipeline_execute_command",
            "pipeline_execute_command": "command_stack",
            "execute": "command_stack is_transaction",
        },
    ),
    Touched("websockets", ServerProtocol, (), "data_to_send fail send_close"),
    Touched("websockets", Frame, (), "serialize"),
    Touched(
        "httptools",
        HttpRequestParser,
        (),
        "feed_data get_http_version get_method set_dangerous_leniencies should_keep_alive should_upgrade",
    ),
    Touched("starlette", Response, (EventStream, InPieces, _ImageInPieces), "body headers raw_headers status_code"),
    Touched("click", click.Group, (LazyGroup, _LazyGroup, _Tokens, _Experiments)),
)


def in_library(cls: type) -> bool:
    return cls.__module__.partition(".")[0] not in PRODUCT


def names_of(cls: type) -> set[str]:
    """Its methods and attributes, those among them that its methods make."""
    return set(dir(cls)) | {name for one in cls.__mro__ for name in _assigned(one)}


# To find the source of a class, its whole module is parsed, and many rows have the same classes above them.
@functools.cache
def _assigned(cls: type) -> tuple[str, ...]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return ()  # made in C, or by a call of type()
    of_self = re.findall(r"\bself\.(\w+)\s*(?::[^=\n]+)?=[^=]", source)
    return (*of_self, *re.findall(r"^    (\w+): ", source, re.MULTILINE))


def codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def layers_of(row: Touched) -> list[type]:
    """Our classes on the way to the library's."""
    return list(dict.fromkeys(cls for ours in row.ours for cls in ours.__mro__ if not in_library(cls)))


def label(row: Touched) -> str:
    return f"{row.package}-{row.theirs.__name__}"


@pytest.mark.parametrize("row", TABLE, ids=label)
def test_every_name_that_is_used_is_there(row: Touched) -> None:
    assert set(row.uses.split()) - names_of(row.theirs) == set()


@pytest.mark.parametrize("row", TABLE, ids=label)
def test_what_is_overridden_is_still_called(row: Touched) -> None:
    silent = []
    for caller, called in row.calls.items():
        function = inspect.unwrap(getattr(row.theirs, caller))
        assert isinstance(function, FunctionType)
        used = {name for code in codes_in(function.__code__) for name in code.co_names}
        silent += [f"{caller} does not use {name}" for name in called.split() if name not in used]
    assert silent == []


@pytest.mark.parametrize("row", [row for row in TABLE if row.ours], ids=label)
def test_what_says_override_overrides_and_nothing_else_does(row: Touched) -> None:
    theirs = names_of(row.theirs)
    for cls in layers_of(row):
        names = {name for name in vars(cls) if not name.startswith("__")} - OF_PYTHON
        marked = {name for name in names if getattr(vars(cls)[name], "__override__", False)}
        above = set().union(*(vars(base) for base in cls.__mro__[1:]))
        assert marked - above == set(), f"{cls.__name__} overrides nothing"
        taken = ((names | set(_assigned(cls))) - marked - set(row.uses.split())) & theirs
        assert taken == set(), f"{cls.__name__} has names that the library uses for something of its own"


def test_no_other_class_of_ours_extends_one_of_these() -> None:
    known = {(cls.__module__, cls.__name__) for row in TABLE for cls in layers_of(row)}
    extended = {row.theirs.__name__ for row in TABLE if row.ours}
    found = list(classes_of_ours())
    # A class may extend one of ours that extends one of these.
    while more := {name for _, name, bases in found if bases & extended} - extended:
        extended |= more
    assert {(module, name) for module, name, bases in found if bases & extended} - known == set()


def classes_of_ours() -> Iterator[tuple[str, str, set[str]]]:
    """Of each class its module, its name, and the names of what it extends, as the library or we call them."""
    for path in files_of_ours():
        tree = ast.parse(path.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        called = {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names = [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases]
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield module, node.name, {called.get(name, name) for name in names}


def files_of_ours() -> Iterator[Path]:
    """Not those that protoc has made."""
    for folder in PRODUCT:
        yield from (path for path in (ROOT / folder).rglob("*.py") if not path.name.endswith("_pb2.py"))


@pytest.mark.parametrize("row", TABLE, ids=label)
def test_the_record_names_it(row: Touched) -> None:
    marked = {name for cls in layers_of(row) for name, value in vars(cls).items() if hasattr(value, "__override__")}
    rows = [line for line in RECORD.splitlines() if line.startswith("|") and f"`{row.theirs.__name__}`" in line]
    # Between our own layers there are overrides too.
    theirs = marked & names_of(row.theirs)
    missing = sorted(name for name in {*theirs, *row.uses.split()} if f"`{name}`" not in " ".join(rows))
    assert missing == [], f"docs/decisions/0013 does not tell of {row.theirs.__name__}"


def test_no_other_private_name_is_touched() -> None:
    """Of somebody else, that is: `x._name`, where the file itself has nothing of that name."""
    touched = set()
    for path in files_of_ours():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        attributes = [node for node in nodes if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)]
        own = [node for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")]
        known = {node.attr for node in own} | {node.id for node in nodes if isinstance(node, ast.Name)}
        known |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        touched |= {node.attr for node in attributes} - known
    # The last one is a named tuple's, which is public in spite of its name.
    assert touched == {"_reader", "_io_writer", "_replace"}


@pytest.mark.parametrize("module", [redis.asyncio.connection, nats.aio.client], ids=lambda module: module.__name__)
def test_drivers_wait_with_the_name_that_is_replaced(module: object) -> None:
    """A driver that imports the function itself would keep the one that loses cancellations (decision 0031)."""
    assert module.asyncio is asyncio  # type: ignore[attr-defined]
    assert not hasattr(module, "wait_for")
    assert list(inspect.signature(cancellation.wait_for).parameters) == ["awaitable", "timeout"]


@pytest.mark.parametrize("package", sorted({row.package for row in TABLE if row.package}))
def test_it_has_a_floor_and_a_cap(package: str) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    line = next(line for line in wanted if re.match(rf"{package}\b(\[\w+\])?[><]", line))
    assert re.search(r">=[\d.]+,<[\d.]+$", line), f"{line}: give it a floor and a cap"
    assert f"`{line}`" in RECORD
