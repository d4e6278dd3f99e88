"""AWS through boto3, which is an optional dependency (the extra ``aws``): imported when a client is opened.

Every call blocks: run it in a thread where an event loop must go on. Where ``endpoint_url`` is not given, boto3 looks
for ``AWS_ENDPOINT_URL`` itself, and for credentials and region where it always does: in the environment, in the task
role.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_TIMEOUT_S: Final = 5.0
_ATTEMPTS: Final = 3


class AwsError(Exception):
    """A call failed, or boto3 is missing or not configured; carries what was asked and boto3's own text."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever boto3 raises inside into :class:`AwsError`.

    Its exceptions are made at run time and share no base that could be named without importing it.
    """
    try:
        yield
    except AwsError:
        raise
    except Exception as error:
        raise AwsError(f"{what}: {type(error).__name__}: {error}") from error


def open_s3(*, endpoint_url: str | None = None, timeout_s: float = 30.0) -> Any:
    """A client whose calls block: run them in a thread. Its own retries are off, the caller repeats.

    Args:
        endpoint_url: where S3 is, if not at AWS. Buckets are then part of the path, not of the host name.
        timeout_s: for connecting and for each answer.

    Raises:
        ImportError: boto3 is not installed.
        Exception: boto3's own, where the region or the address is nonsense.
    """
    s3: dict[str, Any] = {"addressing_style": "path"} if endpoint_url else {}
    return _open("s3", endpoint_url=endpoint_url, timeout_s=timeout_s, attempts=1, s3=s3)


def open_secrets(*, endpoint_url: str | None = None, timeout_s: float = _TIMEOUT_S) -> Any:
    """A client of Secrets Manager. Nothing can start without its answer, so it is patient.

    Raises:
        AwsError: boto3 is missing or not configured.
    """
    with translated("Secrets Manager"):
        return _open("secretsmanager", endpoint_url=endpoint_url, timeout_s=timeout_s, attempts=5)


def open_cloud_map(*, endpoint_url: str | None = None, timeout_s: float = _TIMEOUT_S) -> Any:
    """A client of Cloud Map.

    Raises:
        AwsError: boto3 is missing or not configured.
    """
    with translated("Cloud Map"):
        # At AWS, looking up goes to a host of its own, "data-…"; an emulator has one name for everything.
        return _open(
            "servicediscovery", endpoint_url=endpoint_url, timeout_s=timeout_s, inject_host_prefix=not endpoint_url
        )


def open_cloudwatch(*, endpoint_url: str | None = None, timeout_s: float = _TIMEOUT_S) -> Any:
    """A client of CloudWatch.

    Raises:
        AwsError: boto3 is missing or not configured.
    """
    with translated("CloudWatch"):
        return _open("cloudwatch", endpoint_url=endpoint_url, timeout_s=timeout_s)


def _open(
    service: str, *, endpoint_url: str | None, timeout_s: float, attempts: int = _ATTEMPTS, **options: Any
) -> Any:
    boto3 = importlib.import_module("boto3")
    config = importlib.import_module("botocore.config").Config(
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        **options,
    )
    # A session of its own: boto3's default one is shared by the whole process and not meant for threads.
    return boto3.session.Session().client(service, endpoint_url=endpoint_url or None, config=config)


def read_secret(client: Any, name: str) -> str:
    """The current text of a secret, by name or ARN.

    Raises:
        AwsError: it does not exist, may not be read, or is binary.
    """
    with translated(f"secret {name}"):
        text = client.get_secret_value(SecretId=name).get("SecretString")
    if not isinstance(text, str):
        raise AwsError(f"secret {name}: it is binary, not text")
    return text


def ensure_bucket(client: Any, name: str) -> bool:
    """Make the bucket if it is not there, in the client's region; False if it was.

    Raises:
        AwsError: S3 cannot be asked, or refuses.
    """
    region = client.meta.region_name
    # The one region that must not be named.
    where = {} if region in (None, "us-east-1") else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    with translated(f"bucket {name}"):
        known = {bucket["Name"] for bucket in client.list_buckets().get("Buckets", [])}
        if name in known:
            return False
        client.create_bucket(Bucket=name, **where)
    return True
