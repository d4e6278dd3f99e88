"""Ports: free ones are found, taken ones are named together with the setting that changes them."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from infrastructure.local.errors import PortInUse, StackError
from infrastructure.local.servers.ports import Ports, Wanted, free_ports, is_free, require_free, setting_of


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this very process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_are_free_and_differ() -> None:
    ports = dataclasses.astuple(Ports.free())
    assert len(set(ports)) == len(ports)
    assert all(is_free(port) for port in ports)


def test_a_port_that_was_given_out_is_not_given_out_again() -> None:
    """Its server may not be there yet, or away for a moment."""
    few = free_ports(3)
    with pytest.raises(StackError, match="Found no 1 free ports"):
        free_ports(1, few)


def test_the_last_free_port_of_many_is_found() -> None:
    """It is most likely not among those that are tried first."""
    given_out = free_ports(120)
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert free_ports(1, [*given_out, free]) == [free]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port that is kept could not be listened on")
def test_not_even_to_another_process() -> None:
    few = free_ports(3)
    ask = f"from infrastructure.local.servers.ports import free_ports; free_ports(1, {few})"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert "Found no 1 free ports" in asked.stderr
    for port in few:
        socket.create_server(("127.0.0.1", port)).close()


def test_the_default_ports_differ() -> None:
    ports = dataclasses.astuple(Ports())
    assert len(set(ports)) == len(ports)


def test_a_taken_port_is_not_free_until_it_is_let_go(taken: int) -> None:
    assert not is_free(taken)


def test_a_port_whose_server_has_just_closed_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the closing side: its socket stays in TIME_WAIT
        client.close()
    assert is_free(port)


def test_the_error_names_the_port_the_setting_and_the_holder(taken: int) -> None:
    with pytest.raises(PortInUse) as caught:
        require_free([Wanted("nats_monitor", "NATS monitoring", taken)])
    text = str(caught.value)
    assert f"Port {taken}" in text
    assert "NATS_MONITOR_PORT=" in text
    assert "--nats-monitor-port" in text
    assert f"process {os.getpid()}" in text


@pytest.mark.parametrize("port", [80, 8_080, 64_535, 64_536, 65_535])
def test_the_port_that_is_proposed_is_one(port: int) -> None:
    proposed = re.search(r"GATEWAY_PORT=(\d+)", str(PortInUse(port, "the API gateway", "GATEWAY_PORT", None)))
    assert proposed is not None
    assert 1 <= int(proposed[1]) <= 65_535


def test_one_port_for_two_purposes_names_both_settings() -> None:
    port = Ports.free().gateway
    with pytest.raises(StackError, match=r"BROADCAST_PORT and GATEWAY_PORT are both"):
        require_free([Wanted("gateway", "the API gateway", port), Wanted("broadcast", "the live feed", port)])


def test_setting_names_are_those_of_the_environment() -> None:
    assert [setting_of(field.name) for field in dataclasses.fields(Ports)] == [
        "GATEWAY_PORT",
        "BROADCAST_PORT",
        "ARCHIVER_PORT",
        "REDIS_PORT",
        "NATS_PORT",
        "NATS_MONITOR_PORT",
        "POSTGRES_PORT",
        "CACHE_PORT",
        "CACHE_NODE_PORT",
    ]
