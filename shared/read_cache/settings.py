"""The settings of whoever reads through the cache, and of its nodes."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from shared.settings import EnvironmentSettings

Mode = Literal["off", "local", "cluster"]
Policy = Literal["tinylfu", "lru"]
Provider = Literal["static", "cloud_map", "jetstream"]


class ReadCacheSettings(EnvironmentSettings):
    """Read from the environment by every service that uses the cache.

    Attributes:
        read_cache: off: every get asks the origin. local: a store in this process. cluster: keys are shared by nodes.
        read_cache_bytes_max: what the values, keys and their bookkeeping of this process may take, in all.
        read_cache_policy: what has to go when that is full.
        read_cache_loads_max: questions to the origin at a time; further ones wait.
        read_cache_waiting_max: those that may wait; further ones are refused at once.
        read_cache_membership: where a cluster's nodes are found.
        read_cache_nodes: for static: ``name=host:port,name=host:port*weight``.
        read_cache_cloud_map: for cloud_map: ``namespace/service``.
        read_cache_bucket: for jetstream: the beginning of the names of its buckets; clusters of one NATS differ in it.
        read_cache_lease_s: for jetstream: how long a node counts after it was last heard of, and how long a view may be
            relied on after it was last confirmed.
        read_cache_peer_timeout_ms: how long a get waits for a peer before it is loaded here.
        read_cache_tls_cert_file, read_cache_tls_key_file, read_cache_tls_ca_file: PEM files; all three or none. With
            them peers talk TLS and each shows a certificate that the CA has signed.
    """

    read_cache: Mode = "local"
    read_cache_bytes_max: int = Field(default=64 * 1024**2, ge=1024**2)
    read_cache_policy: Policy = "tinylfu"
    read_cache_loads_max: int = Field(default=8, ge=1)
    read_cache_waiting_max: int = Field(default=1_000, ge=0)
    read_cache_membership: Provider = "jetstream"
    read_cache_nodes: str = ""
    read_cache_cloud_map: str = ""
    read_cache_bucket: str = "read_cache"
    read_cache_lease_s: float = Field(default=3.0, ge=0.5, le=60)
    read_cache_peer_timeout_ms: int = Field(default=250, ge=10, le=10_000)
    read_cache_tls_cert_file: str = ""
    read_cache_tls_key_file: str = ""
    read_cache_tls_ca_file: str = ""

    @field_validator("read_cache_bucket")
    @classmethod
    def _names_a_bucket(cls, name: str) -> str:
        if not re.fullmatch("[A-Za-z0-9_-]{1,32}", name):
            raise ValueError("must have 1 to 32 letters, digits, - and _")
        return name
