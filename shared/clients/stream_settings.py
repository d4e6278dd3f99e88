"""The settings of the event stream: apart from its client, which takes long to import and not all commands need."""

from __future__ import annotations

from pydantic import field_validator

from shared.settings import EnvironmentSettings


class StreamSettings(EnvironmentSettings):
    """Read here, not in each service, since the service that comes first makes the stream for all."""

    nats_stream_replicas: int = 1

    @field_validator("nats_stream_replicas")
    @classmethod
    def _can_agree(cls, replicas: int) -> int:
        if replicas not in (1, 3, 5):
            raise ValueError("must be 1, 3 or 5")
        return replicas
