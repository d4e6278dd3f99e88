"""How a URL names a cluster: ``redis+cluster://host:port,host:port`` (``rediss+cluster`` with TLS). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from typing_extensions import override

SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""The scheme of a cluster's URL, and that of the URL of one of its nodes."""
_PORT: Final = 6379


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_cluster_url(url: str) -> bool:
    """Whether the URL says that it names nodes of a cluster, and not one server."""
    return url.partition("://")[0].lower() in SCHEMES


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """The URL of a cluster.

    Attributes:
        seeds: where to ask first which nodes there are; one that answers is enough.
        scheme, userinfo, query: what the URL of each node has, too: ``userinfo`` as it stands before the ``@``.
    """

    seeds: Sequence[Address]
    scheme: str
    userinfo: str = ""
    query: str = ""

    @classmethod
    def parse(cls, url: str) -> ClusterUrl:
        """Read it.

        Raises:
            ValueError: it is not the URL of a cluster. The text shows no password.
        """
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in SCHEMES:
            raise ValueError("the URL of a cluster begins with redis+cluster:// or rediss+cluster://")
        rest, _, query = rest.partition("?")
        seeds: list[Address] = []
        userinfo = ""
        for part in rest.split(","):
            # The others may repeat the scheme.
            server = urlsplit("redis://" + part.rpartition("://")[2])
            try:
                port = server.port
            except ValueError:
                raise ValueError("a port of the cluster's URL is no number from 0 to 65535") from None
            if not server.hostname:
                raise ValueError("the cluster's URL lacks a host: redis+cluster://host:port,host:port")
            if server.path.strip("/") not in ("", "0"):
                raise ValueError("a cluster has no database but 0")
            userinfo = userinfo or server.netloc.rpartition("@")[0]
            seeds.append(Address(server.hostname, port or _PORT))
        return cls(tuple(seeds), SCHEMES[scheme.lower()], userinfo, query)

    def url_of(self, address: Address) -> str:
        """The URL of one node."""
        login = f"{self.userinfo}@" if self.userinfo else ""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{login}{address}/0{query}"
