"""The programs that the image can run, by name. Standard library only: the health check imports this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Program:
    """``module`` and ``arguments`` are for ``python -m``.

    ``port_setting`` and ``port`` are where a service answers ``/health``; a program that ends by itself has none.
    ``needs`` are settings that must have a value of their own, except with ENVIRONMENT=local.
    """

    module: str
    arguments: tuple[str, ...] = ()
    port_setting: str = ""
    port: int = 0
    needs: tuple[str, ...] = ()


PROGRAMS: Final = {
    "api_gateway": Program("api_gateway", (), "GATEWAY_PORT", 8080, ("ALIAS_SECRET",)),
    "broadcast_service": Program("broadcast_service", (), "BROADCAST_PORT", 8081, ("ALIAS_SECRET",)),
    "archival_worker": Program("archival_worker", (), "ARCHIVER_PORT", 8082),
    "cache_node": Program("cache_node", (), "CACHE_PORT", 9999, ("ALIAS_SECRET",)),
    "migrate": Program("archival_worker", ("migrate",)),
    "recover": Program("archival_worker", ("recover",)),
    "dead-letters": Program("archival_worker", ("dead-letters",)),
    "api-keys": Program("archival_worker", ("api-keys",)),
    "acts": Program("archival_worker", ("acts",)),
    "login": Program("archival_worker", ("login",)),
    "audit": Program("archival_worker", ("audit",)),
    "verify-export": Program("archival_worker", ("verify-export",)),
    "retention": Program("archival_worker", ("retention",)),
    "prepare-aws": Program("infrastructure.docker.prepare_aws"),
    "form-cluster": Program("infrastructure.docker.form_cluster"),
}
