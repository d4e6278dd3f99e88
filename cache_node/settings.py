"""Settings of a cache node or front end, read once from the environment. Those of the cache itself are
:class:`shared.read_cache.settings.ReadCacheSettings`."""

from __future__ import annotations

import socket
from typing import Final, Literal

from pydantic import Field, field_validator

from shared.logs import LogFormat
from shared.read_cache.membership.static import parse_nodes
from shared.read_cache.peers.wire import checked_address
from shared.read_cache.ring import Node
from shared.read_cache.settings import Mode, ReadCacheSettings
from shared.settings import EnvironmentSettings, LogLevel

AUTO: Final = "auto"


class Settings(EnvironmentSettings):
    """Every setting has a default that works with ``bidding up --cache-nodes``.

    Attributes:
        nats_url: where the ring is agreed, and where a node hears of changes.
        postgres_url: the archive.
        cache_role: ``node``: owns keys of the ring. ``front_end``: asks the nodes and owns nothing.
        cache_host, cache_port: where HTTP is served.
        cache_node_host, cache_node_port: where a node listens for its peers and readers, and its address in the ring:
            an IP address of loopback or a private network. ``auto`` is that of this machine's own name.
        cache_node_name: a node's name in the ring, which decides what keys it owns; empty: made of its address.
        cache_postgres_timeout_s: bound of one question to PostgreSQL.
        cache_head_timeout_s: how long a request's head, and then its body, may take to arrive.
    """

    nats_url: str = "nats://127.0.0.1:4322"
    postgres_url: str = "postgresql://bidding@127.0.0.1:5532/bidding"
    cache_role: Literal["node", "front_end"] = "node"
    cache_host: str = "127.0.0.1"
    cache_port: int = Field(default=9999, ge=0, le=65_535)
    cache_node_host: str = "127.0.0.1"
    cache_node_port: int = Field(default=8001, ge=1, le=65_535)
    cache_node_name: str = ""
    cache_postgres_timeout_s: float = Field(default=2, gt=0, le=5)
    cache_head_timeout_s: float = Field(default=10, gt=0)
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"

    @field_validator("cache_node_host")
    @classmethod
    def _is_private(cls, host: str) -> str:
        if host != AUTO:
            try:
                checked_address(_address(host, 1))
            except ValueError:
                raise ValueError("must be auto, or an IP address of loopback or of a private network") from None
        return host

    @field_validator("cache_node_name")
    @classmethod
    def _names_a_node(cls, name: str) -> str:
        if name:
            try:
                Node(name, "127.0.0.1:1")
            except ValueError:
                raise ValueError("must have 1 to 64 letters, digits, - and _") from None
        return name

    def node(self) -> Node | None:
        """This process as a node of the ring; None for a front end.

        Raises:
            ValueError: there is no address for ``auto``, or none of a private network.
        """
        if self.cache_role == "front_end":
            return None
        host = self.cache_node_host
        if host == AUTO:
            try:
                host = socket.gethostbyname(socket.gethostname())
            except OSError as error:
                raise ValueError(f"CACHE_NODE_HOST=auto: this machine's name has no address: {error}") from error
        address = checked_address(_address(host, self.cache_node_port))
        plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in address)
        return Node(self.cache_node_name or f"node-{plain}", address)


class ClusterSettings(ReadCacheSettings):
    """Fixes READ_CACHE, which is a setting of readers of the cache: this program is itself the cluster."""

    read_cache: Mode = "cluster"

    @field_validator("read_cache", mode="before")
    @classmethod
    def _is_of_a_cluster(cls, _: object) -> str:
        return "cluster"


def checked_node(settings: Settings, cluster: ClusterSettings) -> Node | None:
    """This process as a node of the ring; None for a front end.

    Raises:
        ValueError: there is no address for it, or the list of nodes lacks it. The text says what to do.
    """
    node = settings.node()
    if node is not None and cluster.read_cache_membership == "static":
        names = [each.name for each in parse_nodes(cluster.read_cache_nodes)]
        if node.name not in names:
            raise ValueError(
                f"READ_CACHE_NODES names {', '.join(names)}, and not this node, {node.name}: "
                "add it, or set CACHE_NODE_NAME"
            )
    return node


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
