"""Settings of the archival worker, read once from the environment."""

from __future__ import annotations

from pydantic import Field

from shared.logs import LogFormat
from shared.settings import EnvironmentSettings, LogLevel, RedisUrl


class Settings(EnvironmentSettings):
    """Every setting has a default that works with ``bidding up``.

    Attributes:
        redis_url, nats_url, postgres_url: the servers.
        archiver_host, archiver_port: where health and metrics are served.
        archiver_batch_rows: rows per transaction.
        archiver_linger_ms: how long the first message of a batch waits for others.
        archiver_postgres_timeout_s: bound of one statement; must stay below the ack wait.
        archiver_ack_wait_s: after so long without an acknowledgement JetStream delivers a message again. Applies to a
            new consumer, not to one that exists already.
        archiver_holes_look_s: how often to look for entries that are published but no longer in the stream.
        archiver_stop_s: how long a running batch may take to finish after SIGTERM.
        archiver_chain: whether this archiver extends the chain of hashes, without which nothing is exported. Turn it
            off only to measure what the chain costs; the next archiver with it on catches up.
        closed_keep_s: how long a closed item stays in Redis after its last event, at least: it leaves once it is
            archived and exported. 0: at once then; -1: never. `recover` leaves out what would leave at once. Below
            1,800, verdicts of refused bids are forgotten with the item, before their half hour is over.
        archiver_migrate_wait_s: how long ``migrate`` waits for the server, and for another migration.
        export_dir: folder for the exports of closed items; empty for none. Ignored if a bucket is set.
        export_s3_bucket: bucket for them; empty for none.
        aws_endpoint_url: where S3 is, if not at AWS. boto3 finds credentials and region by itself.
        export_timeout_s: bound of connecting to S3, and of each of its responses.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    redis_url: RedisUrl = "redis://127.0.0.1:6479/0"
    nats_url: str = "nats://127.0.0.1:4322"
    postgres_url: str = "postgresql://bidding@127.0.0.1:5532/bidding"
    archiver_host: str = "127.0.0.1"
    archiver_port: int = Field(default=8082, ge=0, le=65_535)
    archiver_batch_rows: int = Field(default=5_000, ge=1, le=50_000)
    archiver_linger_ms: int = Field(default=20, ge=0, le=10_000)
    archiver_postgres_timeout_s: float = Field(default=20, gt=0)
    archiver_ack_wait_s: float = Field(default=30, gt=0)
    archiver_holes_look_s: float = Field(default=10, gt=0)
    archiver_stop_s: float = Field(default=10, gt=0)
    archiver_chain: bool = True
    closed_keep_s: float = Field(default=3_600, ge=-1)
    archiver_migrate_wait_s: float = Field(default=60, gt=0)
    export_dir: str = ""
    export_s3_bucket: str = ""
    aws_endpoint_url: str = ""
    export_timeout_s: float = Field(default=30, gt=0)
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"
