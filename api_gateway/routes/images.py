"""``/api/v1/images``: upload an image; ``/images/…``: read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import BinaryIO, Final

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_gateway.context import context_of
from api_gateway.contract.documented import ImageAnswer, json_content
from api_gateway.contract.problems import problem_of
from api_gateway.door.rates import peer_of
from api_gateway.identity.access import permit_of
from api_gateway.images.addresses import PREFIX, kind_named
from api_gateway.images.errors import ImageNotFound
from api_gateway.images.images import Images
from api_gateway.images.picture import Kind

router = APIRouter(tags=["items"])

PATH: Final = "/api/v1/images"
UPLOAD_S: Final = 60.0
"""How long the body of an upload may take to arrive."""

_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_CONTENT: Final = {kind.media_type: {"schema": {"type": "string", "format": "binary"}} for kind in Kind}


@router.post(
    PATH,
    status_code=201,
    summary="Upload an image",
    responses={
        201: {
            "description": "Where it is",
            "content": json_content(ImageAnswer),
            "headers": {
                "Location": {"description": "The same as `url`.", "schema": {"type": "string"}, "required": True}
            },
        },
        **{status: {} for status in (415, 422, 429, 501, 503, 507)},
    },
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
)
async def upload_image(request: Request) -> Response:
    """The body is the file itself: JPEG, PNG or WebP, named so by its Content-Type. Send its `url` among the
    `image_urls` of a new item within a day; after that an image that no item uses is removed.

    Comments, the place of the shot and other data about the picture are taken out. The address is that of the content:
    the same file again is the same image.
    """
    permit = permit_of(request)
    if permit.principal is not None:
        uploader = permit.principal.user_id
    else:
        # The address as it is counted, also behind a proxy of the operator.
        uploader = context_of(request).rates.address(peer_of(request.scope), request.scope["headers"])
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        uploaded = await context_of(request).images.take(_whole_file(request), media_type, uploader)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    answer = ImageAnswer(
        url=uploaded.url,
        content_type=uploaded.kind.media_type,
        bytes=uploaded.size,
        width=uploaded.width,
        height=uploaded.height,
    )
    return Response(msgspec.json.encode(answer), 201, {"location": uploaded.url}, "application/json")


async def _whole_file(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        ClientDisconnect: it breaks off.
        Unauthenticated, KeysAway: its sender is not believed any more when all of it is there.
    """
    async for piece in request.stream():
        yield piece
    # It may have taken a minute, and only now is the file to be kept.
    context_of(request).access.check_again(permit_of(request))


async def image_file(request: Request) -> Response:
    """An image. Its name is that of its content, so its address never has another one."""
    name = request.path_params["name"]
    kind = kind_named(name)
    images = context_of(request).images
    tag = f'"{name}"'
    if kind is not None and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=_headers(tag))
    found = None if kind is None else await images.open(name)
    if kind is None or found is None:
        status, body, headers = problem_of(ImageNotFound(name))
        return Response(body, status, headers, "application/problem+json")
    return _ImageInPieces(images, *found, kind, tag)


def _headers(tag: str) -> dict[str, str]:
    return {
        "cache-control": _FOR_GOOD,
        "etag": tag,
        # Browsers must treat it as an image, whatever its bytes look like and wherever it is opened.
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
    }


class _ImageInPieces(Response):
    """Sends a file: each piece is read when most of those before it have been taken."""

    def __init__(self, images: Images, file: BinaryIO, size: int, kind: Kind, tag: str) -> None:
        super().__init__(None, 200, _headers(tag) | {"content-length": str(size)}, kind.media_type)
        self._images = images
        self._file = file
        self._size = size

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            left = self._size
            while left > 0:
                piece = await self._images.read(self._file)
                if not piece:
                    raise OSError("an image became shorter while it was sent")
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            if self._size == 0:
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._images.close_file(self._file)


router.add_route(PREFIX + "{name}", image_file, methods=["GET"], include_in_schema=False)
