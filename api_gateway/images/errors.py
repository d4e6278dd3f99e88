"""Why an image is not taken. Each says what to do."""

from __future__ import annotations

from shared.domain.errors import BiddingError, InvalidInput, Unavailable


class ImageTypeWrong(BiddingError):
    """The image is not a JPEG, PNG or WebP, or not of the type that the request names."""

    code = "IMAGE_TYPE"


class ImageTooLarge(BiddingError):
    """The image has too many bytes."""

    code = "BODY_TOO_LARGE"

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the image may have {bytes_max} bytes; make it smaller")


class UploadTooSlow(BiddingError):
    """The image arrives too slowly, while other uploads wait."""

    code = "BODY_TOO_SLOW"

    def __init__(self) -> None:
        super().__init__("the image comes too slowly; send it again over a faster connection, or make it smaller")


class ImageBroken(InvalidInput):
    """The file begins like an image of its type, and is cut off or damaged."""

    code = "IMAGE_BROKEN"


class ImageDimensions(InvalidInput):
    """The image has too many pixels."""

    code = "IMAGE_DIMENSIONS"


class ImageQuota(BiddingError):
    """Too much was uploaded today. It may be tried again after ``retry_after_s``."""

    code = "IMAGE_QUOTA"

    def __init__(self, whose: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{whose} for one day has been used; try again tomorrow (UTC)")


class ImagesFull(BiddingError):
    """There is no room for more."""

    code = "IMAGES_FULL"

    def __init__(self) -> None:
        super().__init__("there is no room for more images; tell the operator")


class ImagesOff(BiddingError):
    """This platform keeps no images."""

    code = "IMAGES_OFF"

    def __init__(self) -> None:
        super().__init__("images cannot be uploaded here: neither IMAGES_DIR nor IMAGES_S3_BUCKET is set")


class ImageNotFound(BiddingError):
    """There is no such image, or it was removed because no item used it."""

    code = "IMAGE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no image {name[:80]!r}")


class StoreAway(Unavailable):
    """The store of images cannot be reached, or does not write."""

    code = "IMAGES_UNAVAILABLE"
