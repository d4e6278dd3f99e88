"""Photographs of lots on running services: uploaded, used, read, archived, exported, rebuilt; and refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
import pytest_asyncio

from api_gateway.images.quota import AT_ONCE_EACH_MAX
from archival_worker.chain.export_file import verify
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared.redis_layout.keys import item_key
from tests.integration.loss.recover_world import House, house_of
from tests.stack import StackFactory
from tests.unit.api_gateway.images.pictures import HTML, SVG, chunk, jpeg, png, webp
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

IMAGES = "/api/v1/images"
ITEMS = "/api/v1/items"
BYTES_MAX = 200_000
DAY_BYTES_MAX = 3_000_000
ELSEWHERE = "https://img.example.com/a.jpg"
ABSENT = f"/images/{'0' * 64}.png"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    factory = StackFactory()
    env = {
        "IMAGE_BYTES_MAX": str(BYTES_MAX),
        "IMAGES_UPLOADER_DAY_BYTES_MAX": str(DAY_BYTES_MAX),
        "IMAGE_HOSTS": "img.example.com",
        "CLOSED_KEEP_S": "0",
    }
    try:
        stack = await factory(services=(API_GATEWAY, ARCHIVAL_WORKER), env=env)
        async with house_of(stack) as house:
            yield house
    finally:
        await factory.close()


async def sent(house: House, file: bytes, media_type: str = "image/png") -> httpx.Response:
    return await house.http.post(IMAGES, content=file, headers={"content-type": media_type})


async def uploaded(house: House, file: bytes | None = None, media_type: str = "image/png") -> str:
    """The address of an image, by default of a new one."""
    answer = await sent(house, file or png(more=chunk(b"gAMA", secrets.token_bytes(4))), media_type)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def folder_of(house: House) -> Path:
    return house.stack.data_dir / "images"


async def test_a_file_becomes_an_address(house: House) -> None:
    file = png(640, 480)
    answer = await sent(house, file)
    told = answer.json()
    assert answer.status_code == 201
    assert told == {
        "url": told["url"],
        "content_type": "image/png",
        "bytes": len(file),
        "width": 640,
        "height": 480,
    }
    assert answer.headers["location"] == told["url"]
    assert (await sent(house, file)).json() == told  # the same file is the same image

    read = await house.http.get(told["url"])
    assert (read.status_code, read.content) == (200, file)
    assert read.headers["content-type"] == "image/png"
    assert read.headers["content-length"] == str(len(file))
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert read.headers["content-security-policy"] == "default-src 'none'; sandbox"
    again = await house.http.get(told["url"], headers={"if-none-match": read.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await house.http.head(told["url"])
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(file)))


@pytest.mark.parametrize(("file", "media_type"), [(jpeg(), "image/jpeg"), (webp(), "image/webp; q=1")])
async def test_the_other_types(house: House, file: bytes, media_type: str) -> None:
    read = await house.http.get(await uploaded(house, file, media_type))
    assert (read.content, read.headers["content-type"]) == (file, media_type.partition(";")[0])


async def test_what_is_also_a_page_is_given_out_as_an_image_without_it(house: House) -> None:
    read = await house.http.get(await uploaded(house, png(5, 5, more=chunk(b"tEXt", b"x\0" + HTML)) + HTML))
    assert HTML not in read.content
    assert read.headers["content-type"] == "image/png"
    assert read.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("file", "media_type", "refusal"),
    [
        (SVG, "image/svg+xml", (415, "IMAGE_TYPE")),
        (SVG, "image/png", (415, "IMAGE_TYPE")),
        (HTML, "image/jpeg", (415, "IMAGE_TYPE")),
        (HTML, "text/html", (415, "IMAGE_TYPE")),
        (png(), "image/jpeg", (415, "IMAGE_TYPE")),
        (png(), "application/octet-stream", (415, "IMAGE_TYPE")),
        (b"", "image/png", (415, "IMAGE_TYPE")),
        (png()[:-3], "image/png", (422, "IMAGE_BROKEN")),
        (jpeg()[:-2], "image/jpeg", (422, "IMAGE_BROKEN")),
        (png(30_000, 30_000, rows=0), "image/png", (422, "IMAGE_DIMENSIONS")),
        (png() + bytes(BYTES_MAX), "image/png", (413, "BODY_TOO_LARGE")),
    ],
)
async def test_what_is_refused(house: House, file: bytes, media_type: str, refusal: tuple[int, str]) -> None:
    assert code_of(await sent(house, file, media_type)) == refusal

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(file), 10_000):
            yield file[start : start + 10_000]

    answer = await house.http.post(IMAGES, content=in_pieces(), headers={"content-type": media_type})
    assert code_of(answer) == refusal
    await eventually(lambda: list((folder_of(house) / "arriving").iterdir()) == [], seconds=5)


async def test_a_refusal_is_read_although_the_body_is_still_on_its_way(house: House) -> None:
    parts = urlsplit(house.stack.urls.gateway_url)
    for head, status in (
        (f"Content-Type: image/png\r\nContent-Length: {BYTES_MAX + 1}", b"413"),
        ("Content-Type: text/html\r\nTransfer-Encoding: chunked", b"415"),
    ):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == status
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"connection: close" in answer.lower()
        writer.close()


@pytest.mark.parametrize(
    "path", [ABSENT, "/images/x.png", "/images/", f"/images/{'0' * 64}.svg", "/images/..%2f..%2fredis", "/images/%00"]
)
async def test_addresses_without_an_image(house: House, path: str) -> None:
    assert (await house.http.get(path)).status_code == 404


async def test_of_one_address_so_many_at_once_and_others_go_on(house: House) -> None:
    parts = urlsplit(house.stack.urls.gateway_url)
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 150000\r\n\r\n"
    held = []
    try:
        for _ in range(AT_ONCE_EACH_MAX):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(head.encode() + png()[:30] + bytes(70_000))
            held.append(writer)
        arriving = folder_of(house) / "arriving"
        # Only then: an upload that comes before them would take the place of one.
        await eventually(lambda: len(list(arriving.iterdir())) == AT_ONCE_EACH_MAX, seconds=10)
        assert code_of(await sent(house, png())) == (503, "OVERLOADED")
        await house.create("beside-uploads")
    finally:
        for writer in held:
            writer.close()

    async def is_taken_again() -> bool:
        return (await sent(house, png())).status_code == 201

    await eventually(is_taken_again, seconds=10)


async def lines_of_exports(house: House, item_id: str) -> list[dict[str, Any]]:
    """The newest export of the item, once there is one."""
    folder = house.stack.data_dir / "exports"

    def newest() -> Path | None:
        return next((path for path in folder.rglob("*.gz") if path.parent.name == item_id), None)

    async def found() -> Path | None:
        return newest()

    path = await eventually(found, "an export", seconds=30)
    assert verify(path).item_id == item_id
    return [json.loads(line) for line in gzip.open(path)]


async def test_an_item_has_its_images_wherever_it_is(house: House) -> None:
    urls = [await uploaded(house), await uploaded(house), ELSEWHERE]
    await house.create("photographed", image_urls=urls, duration_s=4)
    await house.create("by-asgi", image_urls=urls[:1])
    await house.create("bare", duration_s=4)
    assert (await house.item("photographed"))["image_urls"] == urls
    await house.accepted("photographed", "ann", "photographed-1", amount=1)
    assert (await house.item("bare"))["image_urls"] == []
    await house.all_archived()
    listed = {item["id"]: item["image_urls"] for item in (await house.page())["items"]}
    assert (listed["photographed"], listed["by-asgi"], listed["bare"]) == (urls, urls[:1], [])

    async def has_left() -> bool:
        return not await house.redis.exists(item_key("photographed"), item_key("bare"))

    await eventually(has_left, "the items out of Redis", seconds=60)
    assert (await house.item("photographed"))["image_urls"] == urls
    assert (await house.item("bare"))["image_urls"] == []
    listed = {item["id"]: item["image_urls"] for item in (await house.page())["items"]}
    assert (listed["photographed"], listed["bare"]) == (urls, [])
    assert (await house.http.get(urls[0])).status_code == 200
    assert [path.parent.parent.name for path in folder_of(house).rglob(urls[1].rpartition("/")[2])] == ["kept"]

    first, created, *_ = await lines_of_exports(house, "photographed")
    assert first["terms"]["image_urls"] == urls
    assert created["event"]["body"]["image_urls"] == urls
    first, created, *_ = await lines_of_exports(house, "bare")
    assert "image_urls" not in first["terms"]
    assert "image_urls" not in created["event"]["body"]
    for item_id in ("photographed", "bare"):
        assert (await house.bidding("audit", item_id))[0] == 0

    await house.query("UPDATE items SET image_urls = '{}' WHERE item_id = 'photographed'")
    code, told = await house.bidding("audit", "photographed")
    assert code != 0
    assert "image_urls" in told
    await house.query("UPDATE items SET image_urls = $1 WHERE item_id = 'photographed'", urls)


async def test_both_roads_and_a_batch_take_images(house: House) -> None:
    url = await uploaded(house)
    # A query is not plain: the framework answers.
    for number, path in enumerate((ITEMS, f"{ITEMS}?a=1")):
        item = {"id": f"road-{number}", "name": "x", "image_urls": [url]}
        made = await house.http.post(path, json=item)
        assert (made.status_code, made.json()["image_urls"]) == (201, [url])
        assert made.headers["location"] == f"{ITEMS}/road-{number}"
        refused = await house.http.post(path, json=item | {"id": f"absent-{number}", "image_urls": [url, ABSENT]})
        assert code_of(refused) == (422, "TERMS_INVALID")
        assert refused.json()["field"] == "image_urls"
        assert (await house.http.get(f"{ITEMS}/absent-{number}?may_open=false")).status_code == 404
    items = [
        {"id": "batch-1", "name": "x", "image_urls": [url]},
        {"id": "batch-2", "name": "x", "image_urls": [ABSENT]},
        {"id": "batch-3", "name": "x", "image_urls": ["https://evil.example/a.jpg"]},
        {"id": "batch-4", "name": "x"},
    ]
    for dry_run, done in ((True, 200), (False, 201)):
        told = await house.http.post(f"{ITEMS}:batch", json={"items": items, "dry_run": dry_run})
        assert [each["status"] for each in told.json()["results"]] == [done, 422, 422, done]
    assert told.json()["results"][0]["answer"]["image_urls"] == [url]


async def test_an_item_that_cannot_be_created_keeps_no_images(house: House) -> None:
    """What is kept is kept for ever, so nobody may fill the disk with it for nothing."""
    await house.create("taken")
    over = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2020-01-02T00:00:00Z"}
    refused = []
    for number, path in enumerate((ITEMS, f"{ITEMS}?a=1", f"{ITEMS}:batch")):
        for terms in ({"id": "taken"}, {"id": f"over-{number}"} | over, {"id": f"half-{number}"}):
            urls = [await uploaded(house)] + ([ABSENT] if terms["id"].startswith("half") else [])
            refused += urls[:1]
            item = {"name": "x", "image_urls": urls} | terms
            answer = await house.http.post(path, json={"items": [item]} if path.endswith("batch") else item)
            status = answer.json()["results"][0]["status"] if path.endswith("batch") else answer.status_code
            assert status == (409 if terms["id"] == "taken" else 422), answer.text
    # Of several items with one id, only the images of the created one are kept, at one moment or in one batch.
    urls = [await uploaded(house) for _ in range(8)]
    rivals = [{"id": "rivals", "name": "x", "image_urls": [url]} for url in urls[:4]]
    answers = await asyncio.gather(*(house.http.post(ITEMS, json=item) for item in rivals))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    batch = [{"id": "rivals-2", "name": "x", "image_urls": [url]} for url in urls[4:]]
    told = (await house.http.post(f"{ITEMS}:batch", json={"items": batch})).json()["results"]
    assert sorted(each["status"] for each in told) == [201, 409, 409, 409]
    kept = {path.name for path in (folder_of(house) / "kept").rglob("*.png")}
    assert [url for url in refused if url.rpartition("/")[2] in kept] == []
    assert len([url for url in urls if url.rpartition("/")[2] in kept]) == 2


async def test_a_client_that_sends_nothing_more_loses_its_place(house: House) -> None:
    parts = urlsplit(house.stack.urls.gateway_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 150000\r\n\r\n"
    writer.write(head.encode() + png()[:30])
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert answer.split()[1] == b"408"
    assert b"connection: close" in answer.lower()
    # What still arrives is thrown away for five seconds before the close.
    assert b"BODY_TOO_SLOW" in await asyncio.wait_for(reader.read(), 30)
    writer.close()


@pytest.mark.parametrize(
    "urls", [[SVG.decode()], ["https://evil.example/a.jpg"], ["/images/x.png"], [ELSEWHERE] * 2, "x", [1], [None]]
)
async def test_addresses_that_no_item_may_have(house: House, urls: Any) -> None:
    answer = await house.http.post(ITEMS, json={"name": "x", "image_urls": urls})
    assert answer.status_code == 422
    assert "image_urls" in answer.json()["detail"]


async def test_pages_may_load_images_from_the_hosts_that_are_named(house: House) -> None:
    policy = (await house.http.get("/")).headers["content-security-policy"]
    assert "img-src 'self' https://img.example.com;" in policy
    assert (await house.http.get("/config.json")).json()["takes_images"] is True


async def test_what_redis_has_lost_comes_back_with_its_images(house: House) -> None:
    urls = [await uploaded(house), ELSEWHERE]
    await house.create("rebuilt", image_urls=urls)
    await house.create("rebuilt-bare")
    before = await house.hash("rebuilt")
    await house.all_archived()
    await house.lose_redis()
    code, told = await house.recover()
    assert code == 0, told

    async def is_back() -> bool:
        answer = await house.http.get(f"{ITEMS}/rebuilt")
        return answer.status_code == 200

    await eventually(is_back, seconds=30)
    assert (await house.item("rebuilt"))["image_urls"] == urls
    assert (await house.item("rebuilt-bare"))["image_urls"] == []
    assert (await house.hash("rebuilt"))["image_urls"] == before["image_urls"]


async def test_who_uploads_too_much_waits_until_tomorrow(house: House) -> None:
    """The last test of this file: afterwards this address may upload nothing."""
    file = png() + bytes(BYTES_MAX - 1_000)
    for _ in range(DAY_BYTES_MAX // BYTES_MAX + 1):
        answer = await sent(house, file)
        if answer.status_code != 201:
            break
    assert code_of(answer) == (429, "IMAGE_QUOTA")
    assert 0 < int(answer.headers["retry-after"]) <= 86_401
    assert (await house.http.get(ITEMS)).status_code == 200
