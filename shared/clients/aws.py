"""S3 through boto3, which is an optional dependency (the extra ``aws``): imported when a client is opened."""

from __future__ import annotations

import importlib
from typing import Any


def open_s3(*, endpoint_url: str | None = None, timeout_s: float = 30.0) -> Any:
    """A client whose calls block: run them in a thread. Its own retries are off, the caller repeats.

    Args:
        endpoint_url: where S3 is, if not at AWS. Buckets are then part of the path, not of the host name.
        timeout_s: for connecting and for each answer.

    Raises:
        ImportError: boto3 is not installed.
        Exception: boto3's own, where the region or the address is nonsense.
    """
    boto3 = importlib.import_module("boto3")
    config = importlib.import_module("botocore.config").Config(
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"} if endpoint_url else {},
    )
    # A session of its own: boto3's default one is shared by the whole process and not meant for threads.
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url or None, config=config)
