"""The settings of whoever reads through the cache, and of its nodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.read_cache.membership.static import parse_nodes
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
    read_cache_lease_s: float = Field(default=3.0, ge=0.5, le=30)
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

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.read_cache != "cluster":
            return self
        if self.read_cache_membership == "static" and not parse_nodes(self.read_cache_nodes):
            raise ValueError(
                "READ_CACHE_MEMBERSHIP=static needs READ_CACHE_NODES, such as a=10.0.0.1:8001,b=10.0.0.2:8001"
            )
        if self.read_cache_membership == "cloud_map" and not all(self.cloud_map):
            raise ValueError("READ_CACHE_MEMBERSHIP=cloud_map needs READ_CACHE_CLOUD_MAP=namespace/service")
        if any(self.tls_files) and not all(self.tls_files):
            raise ValueError("READ_CACHE_TLS_CERT_FILE, READ_CACHE_TLS_KEY_FILE and READ_CACHE_TLS_CA_FILE go together")
        if any(self.tls_files):
            self.read_tls_files()
        return self

    @property
    def cloud_map(self) -> tuple[str, str]:
        """Namespace and service; one of them is empty where the setting is none."""
        namespace, _, service = self.read_cache_cloud_map.partition("/")
        return namespace, service

    @property
    def tls_files(self) -> tuple[str, str, str]:
        """Certificate, key, and CA; all empty without TLS."""
        return self.read_cache_tls_cert_file, self.read_cache_tls_key_file, self.read_cache_tls_ca_file

    def read_tls_files(self) -> list[bytes]:
        """What is in them, in that order.

        Raises:
            ValueError: one cannot be read; with what to do.
        """
        found = []
        for part, path in zip(("CERT", "KEY", "CA"), self.tls_files, strict=True):
            try:
                found.append(Path(path).read_bytes())
            except OSError as error:
                raise ValueError(
                    f"READ_CACHE_TLS_{part}_FILE={path} cannot be read ({error.strerror}): name a PEM file that this "
                    "process may read"
                ) from None
        return found
