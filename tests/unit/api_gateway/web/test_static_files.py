"""The files beside the pages: which there are, their types, and what of them a client is sent again."""

from __future__ import annotations

import hashlib
import json
from importlib import resources

import httpx2 as httpx
import pytest

from tests.unit.api_gateway.web.page import STATIC

VENDOR = resources.files("api_gateway.web") / "vendor"


@pytest.mark.parametrize(
    "path",
    [
        "/static/js/none.js",
        "/static/js/item/none.js",
        "/static/",
        "/static/js",
        "/static/js/item",
        "/static/../pages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%2f..%2fsettings.py",
        "/static//etc/passwd",
        # Pages are answered at their own addresses, with their policy.
        "/static/item.html",
    ],
)
async def test_what_is_no_static_file_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert b"import" not in answer.content


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/static/css/base.css", "text/css; charset=utf-8"),
        ("/static/js/item/item.js", "text/javascript; charset=utf-8"),
        ("/static/favicon.svg", "image/svg+xml"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
async def test_static_files_have_their_type(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/items/lot-1", "/static/js/item/item.js"])
async def test_what_the_client_has_already_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    etag = (await client.get(path)).headers["etag"]

    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        answer = await client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_files_are_packed_only_for_clients_that_can_unpack(client: httpx.AsyncClient) -> None:
    plain = await client.get("/static/js/item/item.js", headers={"Accept-Encoding": "identity"})
    packed = await client.get("/static/js/item/item.js", headers={"Accept-Encoding": "gzip"})

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content == (STATIC / "js" / "item" / "item.js").read_bytes()
    assert packed.headers["vary"] == "Accept-Encoding"


async def test_swagger_ui_is_what_was_published(client: httpx.AsyncClient) -> None:
    told = json.loads((VENDOR / "swagger-ui" / "version.json").read_text("utf-8"))

    assert (told["package"], len(told["sha256"])) == ("swagger-ui-dist", 2)
    for name, digest in told["sha256"].items():
        answer = await client.get(f"/static/vendor/swagger-ui/{name}", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert hashlib.sha256(answer.content).hexdigest() == digest, name
        plain = await client.get(f"/static/vendor/swagger-ui/{name}", headers={"Accept-Encoding": "identity"})
        assert plain.content == answer.content
        # Whatever it says of other hosts, none is loaded: the policy of the page allows none.
    assert "Apache License" in (VENDOR / "swagger-ui" / "LICENSE").read_text("utf-8")
    assert "swagger-ui" in (VENDOR / "swagger-ui" / "NOTICE").read_text("utf-8").lower()
