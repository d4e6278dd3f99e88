"""Which requests a browser has sent for a page of elsewhere, and what a body may be."""

from __future__ import annotations

import pytest

from api_gateway.contract.problems import problem_of
from api_gateway.door.foreign_pages import ForeignPages, NotJson, OriginNotAllowed

HOST = "shop.example:8080"


def verdict(pages: ForeignPages, **said: str) -> str:
    headers = [(b"host", HOST.encode())] + [
        (name.replace("_", "-").encode(), text.encode()) for name, text in said.items()
    ]
    try:
        pages.check(headers)
    except (OriginNotAllowed, NotJson) as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("said", "may"),
    [
        ({}, True),  # a program
        ({"origin": f"http://{HOST}"}, True),
        ({"origin": f"https://{HOST}"}, True),
        ({"origin": f"http://{HOST}", "sec_fetch_site": "same-origin"}, True),
        # A proxy has put another host in the place of the one that the browser has.
        ({"origin": "https://auction.example", "sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"origin": "null", "sec_fetch_site": "cross-site"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        # Another port of this host, or http beside https: another program.
        ({"origin": "http://shop.example:9999", "sec_fetch_site": "same-site"}, False),
        ({"origin": f"http://{HOST}", "sec_fetch_site": "same-site"}, False),
        ({"origin": f"http://{HOST}.evil.example"}, False),
        ({"origin": f"http://evil.example/{HOST}"}, False),
        ({"origin": f"http://{HOST}@evil.example"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "https://partner.example", "sec_fetch_site": "cross-site"}, True),
        ({"origin": "https://Partner.example"}, True),
        ({"sec_fetch_site": "nonsense"}, False),
    ],
)
def test_from_where_a_request_may_come(said: dict[str, str], may: bool) -> None:
    pages = ForeignPages(["https://partner.example"], json_only=False)
    assert verdict(pages, **said) == ("" if may else "ORIGIN_NOT_ALLOWED")
    assert verdict(ForeignPages(["*"], json_only=False), **said) == ""


@pytest.mark.parametrize(
    ("media_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/merge-patch+json", True),
        ("application/x-www-form-urlencoded", False),
        ("text/plain;charset=UTF-8", False),
        ("text/plain; application/json", False),
        ("multipart/form-data; boundary=x", False),
        ("text/json+json", False),
        ("", False),
    ],
)
def test_what_a_body_may_be(media_type: str, is_json: bool) -> None:
    strict, lenient = ForeignPages((), json_only=True), ForeignPages((), json_only=False)
    for body in ({"content_length": "2"}, {"transfer_encoding": "chunked"}):
        expected = "" if is_json else "UNSUPPORTED_MEDIA_TYPE"
        assert verdict(strict, content_type=media_type, **body) == expected
        assert verdict(lenient, content_type=media_type, **body) == "", "curl -d says that it sends a form"


@pytest.mark.parametrize("body", [{"content_length": "2"}, {"transfer_encoding": "chunked"}])
def test_a_body_says_what_it_is(body: dict[str, str]) -> None:
    assert verdict(ForeignPages((), json_only=True), **body) == "UNSUPPORTED_MEDIA_TYPE"
    assert verdict(ForeignPages((), json_only=False), **body) == ""


@pytest.mark.parametrize("body", [{}, {"content_length": "0"}])
def test_no_body_may_be_said_to_be_anything(body: dict[str, str]) -> None:
    """aiohttp says of a POST without a body that it is ``application/octet-stream``."""
    assert verdict(ForeignPages((), json_only=True), content_type="application/octet-stream", **body) == ""


def test_the_answers() -> None:
    assert problem_of(OriginNotAllowed("x"))[::2] == (403, {})
    assert problem_of(NotJson("x"))[::2] == (415, {})


def test_a_body_that_is_none_of_json_is_the_handlers_affair_where_one_is_taken() -> None:
    pages = ForeignPages((), json_only=True)
    png = [(b"content-type", b"image/png"), (b"content-length", b"9")]
    pages.check(png, is_json=False)
    with pytest.raises(NotJson):
        pages.check(png)
    with pytest.raises(OriginNotAllowed):
        pages.check([(b"content-type", b"image/png"), (b"origin", b"https://evil.example")], is_json=False)
