"""Opens the store of images that the settings name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from api_gateway.images.bucket import BucketStore
from api_gateway.images.folder import FolderStore
from api_gateway.images.images import Images
from api_gateway.images.quota import Quota
from api_gateway.images.store import ImageStore
from api_gateway.settings import Settings
from shared.aws.clients import open_s3

COPIES_BYTES_MAX: Final = 64 * 1024**2
"""The most bytes of copies of what was read from a bucket: containers have a small disk, if any."""
_DAY_FACTOR: Final = 20
"""All uploaders together may send as much on one day as this many of them."""
_S3_TIMEOUT_S: Final = 10.0


@contextmanager
def open_images(settings: Settings) -> Iterator[Images]:
    """The images of a gateway: in the bucket if one is named, else in the folder if one is named, else nowhere.

    Raises:
        ValueError: the bucket or the folder cannot be used; says why.
    """
    each = settings.images_uploader_day_bytes_max
    with ExitStack() as stack:
        store: ImageStore | None = None
        scratch: Path | None = None
        if settings.images_s3_bucket:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bidding-images-")))
            scratch = _made(folder / "arriving")
            store = _bucket(settings, _made(folder / "copies"))
        elif settings.images_dir:
            folder = Path(settings.images_dir)
            scratch = _made(folder / "arriving")
            store = FolderStore(
                folder,
                bytes_max=settings.images_stored_bytes_max,
                free_bytes_min=settings.images_disk_free_bytes_min,
            )
        images = Images(
            store,
            scratch,
            quota=Quota(each_bytes_max=each, all_bytes_max=_DAY_FACTOR * each),
            bytes_max=settings.image_bytes_max,
            hosts=settings.image_host_names,
        )
        stack.callback(images.close)
        yield images


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"IMAGES_DIR: {folder} cannot be made: {error.strerror}") from error
    return folder


def _bucket(settings: Settings, copies: Path) -> BucketStore:
    try:
        client = open_s3(endpoint_url=settings.aws_endpoint_url or None, timeout_s=_S3_TIMEOUT_S)
    except ImportError as error:
        raise ValueError(
            "IMAGES_S3_BUCKET is set but boto3 is not installed; install the extra `aws` of this project, or set "
            "IMAGES_DIR instead"
        ) from error
    except Exception as error:
        raise ValueError(f"S3 (IMAGES_S3_BUCKET): {type(error).__name__}: {error}") from error
    return BucketStore(
        client,
        settings.images_s3_bucket,
        copies,
        day_bytes_max=settings.images_stored_bytes_max,
        copies_bytes_max=COPIES_BYTES_MAX,
    )
