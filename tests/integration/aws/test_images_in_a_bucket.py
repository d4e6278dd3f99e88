"""Photographs of lots in S3, against an emulator."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from api_gateway.images.bucket import BucketStore
from api_gateway.images.errors import StoreAway
from api_gateway.images.store import UNUSED_KEEP_S
from infrastructure.local.services import API_GATEWAY
from shared.aws.clients import ensure_bucket, open_s3
from tests.integration.aws.aws_world import environment_of
from tests.stack import StackFactory
from tests.unit.api_gateway.images.pictures import png

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytestmark = pytest.mark.integration


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in environment_of(endpoint).items():
        monkeypatch.setenv(name, value)
    client = open_s3(endpoint_url=endpoint)
    yield client
    client.close()


class World:
    """A store in a bucket of its own, and its folder of copies."""

    def __init__(self, client: Any, folder: Path, *, bucket: str = "", copies_bytes_max: int = 10_000) -> None:
        self.client = client
        self.folder = folder
        self.bucket = bucket or f"images-{uuid.uuid4().hex}"
        ensure_bucket(client, self.bucket)
        self.copies = folder / uuid.uuid4().hex
        self.copies.mkdir()
        self.store = BucketStore(
            client, self.bucket, self.copies, day_bytes_max=10**9, copies_bytes_max=copies_bytes_max
        )

    def put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest() + ".png"
        path = self.folder / "arriving"
        path.write_bytes(content)
        self.store.put(path, name)
        assert not path.exists()
        return name

    def read(self, name: str) -> bytes | None:
        path = self.store.find(name)
        return None if path is None else path.read_bytes()

    def keys(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())]


def test_it_waits_is_kept_and_is_swept(client: Any, tmp_path: Path) -> None:
    world = World(client, tmp_path)
    used, unused = world.put(b"used"), world.put(b"unused")
    assert (world.read(used), world.store.has(unused)) == (b"used", True)
    assert world.store.keep(used)
    assert world.store.keep(used)
    assert world.store.sweep(time.time() + UNUSED_KEEP_S - 60).removed == 0
    assert world.store.sweep(time.time() + UNUSED_KEEP_S + 60).removed == 2  # what was kept waited there too
    assert world.keys() == [f"images/kept/{used}"]
    other = World(client, tmp_path, bucket=world.bucket)
    assert other.store.has(used)
    assert other.store.keep(used)
    assert not other.store.keep(unused)
    assert (other.read(used), other.read(unused)) == (b"used", None)
    head = client.head_object(Bucket=world.bucket, Key=f"images/kept/{used}")
    assert head["ContentType"] == "image/png"
    world.put(b"used")  # it is kept: nothing waits
    assert world.keys() == [f"images/kept/{used}"]


def test_copies_are_bounded(client: Any, tmp_path: Path) -> None:
    world = World(client, tmp_path, copies_bytes_max=2_500)
    names = [world.put(bytes([number]) * 1_000) for number in range(4)]
    for name in names:
        assert world.read(name) is not None
    assert {path.name for path in world.copies.iterdir()} == set(names[2:])
    assert world.read(names[0]) == bytes(1_000)


def test_a_bucket_that_is_not_there_is_told(client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = BucketStore(client, "no-such-bucket", tmp_path, day_bytes_max=10**9, copies_bytes_max=1)
    path = tmp_path / "arriving"
    path.write_bytes(b"x")
    with pytest.raises(StoreAway, match="cannot be reached"):
        store.put(path, hashlib.sha256(b"x").hexdigest() + ".png")
    assert "no-such-bucket" in caplog.text


async def test_a_gateway_with_a_bucket(client: Any, endpoint: str, start_stack: StackFactory) -> None:
    bucket = f"images-{uuid.uuid4().hex}"
    ensure_bucket(client, bucket)
    stack = await start_stack(
        services=(API_GATEWAY,), env=environment_of(endpoint) | {"IMAGES_S3_BUCKET": bucket, "IMAGES_DIR": ""}
    )
    file = png(20, 10)
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        made = await http.post("/api/v1/images", content=file, headers={"content-type": "image/png"})
        assert made.status_code == 201, made.text
        url = made.json()["url"]
        item = await http.post("/api/v1/items", json={"id": "in-s3", "name": "x", "image_urls": [url]})
        assert (item.status_code, item.json()["image_urls"]) == (201, [url])
        for _ in range(2):
            read = await http.get(url)
            assert (read.status_code, read.content, read.headers["content-type"]) == (200, file, "image/png")
        absent = f"/images/{'0' * 64}.png"
        assert (await http.get(absent)).status_code == 404
        refused = await http.post("/api/v1/items", json={"name": "x", "image_urls": [absent]})
        assert (refused.status_code, refused.json()["field"]) == (422, "image_urls")
