"""What servers answer where Starlette, or a defect, gives no answer of theirs."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from shared.http.problems import MEDIA_TYPE, http_error, internal_error, without_redirects


async def fails(_: Request) -> Response:
    raise RuntimeError("a defect")


@pytest.fixture
def client() -> TestClient:
    handlers = {HTTPException: http_error, Exception: internal_error}
    app = Starlette(routes=[Route("/fails", fails, methods=["GET"])], exception_handlers=handlers)
    return TestClient(without_redirects(app), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/fails/", 404, "NOT_FOUND"),
        ("POST", "/fails", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/fails", 500, "INTERNAL_ERROR"),
    ],
)
def test_every_error_is_a_problem_document(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)
    assert (answer.json()["status"], answer.json()["code"]) == (status, code)
    assert ("allow" in answer.headers) is (status == 405)
