"""Who a node is, by its settings."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from cache_node.main import main
from cache_node.settings import ClusterSettings, Settings, checked_node
from shared.settings import EXIT_MISCONFIGURED


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def test_a_node_is_named_by_its_address() -> None:
    node = settings(cache_node_host="10.0.0.7", cache_node_port=8003).node()
    assert node is not None
    assert (node.name, node.address) == ("node-10-0-0-7-8003", "10.0.0.7:8003")
    six = settings(cache_node_host="::1").node()
    assert six is not None
    assert (six.name, six.address) == ("node----1--8001", "[::1]:8001")
    named = settings(cache_node_name="a").node()
    assert named is not None
    assert named.name == "a"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "0.0.0.7", "8.8.8.8", "localhost", "cache.internal", "::", "::ffff:0.0.0.0", "::ffff:8.8.8.8"]
)
def test_a_node_listens_where_nobody_else_comes(host: str) -> None:
    with pytest.raises(ValueError, match="must be auto, or an IP address of loopback"):
        settings(cache_node_host=host)


def test_a_name_that_names_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 64 letters"):
        settings(cache_node_name="a node")


def test_it_is_always_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READ_CACHE", "local")
    assert ClusterSettings().read_cache == "cluster"
    monkeypatch.setenv("READ_CACHE_MEMBERSHIP", "static")
    with pytest.raises(ValueError, match="needs READ_CACHE_NODES"):
        ClusterSettings()


def test_the_address_of_this_machine() -> None:
    node = settings(cache_node_host="auto").node()
    assert node is not None
    ipaddress.ip_address(node.address.rpartition(":")[0])


def test_a_front_end_has_no_place_in_the_ring() -> None:
    assert settings(cache_role="front_end").node() is None


def test_a_node_that_the_list_of_nodes_does_not_name_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("READ_CACHE_MEMBERSHIP", "static")
    monkeypatch.setenv("READ_CACHE_NODES", "a=127.0.0.1:8001,b=127.0.0.1:8002")
    monkeypatch.setenv("CACHE_NODE_NAME", "c")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == EXIT_MISCONFIGURED
    error = capsys.readouterr().err
    assert error == "error: READ_CACHE_NODES names a, b, and not this node, c: add it, or set CACHE_NODE_NAME\n"
    cluster = ClusterSettings()
    named = checked_node(settings(cache_node_name="b"), cluster)
    assert named is not None
    assert checked_node(settings(cache_role="front_end"), cluster) is None
