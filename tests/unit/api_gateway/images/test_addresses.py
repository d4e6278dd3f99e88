"""Which addresses an item's images may have, and which hosts an operator may name."""

from __future__ import annotations

import pytest

from api_gateway.images.addresses import PER_ITEM_MAX, checked_hosts, checked_urls, kind_named, own_names
from api_gateway.images.picture import Kind
from shared.domain.errors import TermsInvalid

SHA = "0123456789abcdef" * 4
OWN = f"/images/{SHA}.jpg"
HOSTS = frozenset({"img.example.com", "other.example:8443"})


@pytest.mark.parametrize(
    "url",
    [
        OWN,
        f"/images/{SHA}.webp",
        "https://img.example.com/a/b.jpg?w=300&h=200",
        "https://IMG.example.com/",
        "https://other.example:8443/x.png",
    ],
)
def test_allowed(url: str) -> None:
    assert checked_urls([url], HOSTS) == (url,)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "neither"),
        ("/images/x.jpg", "no address that an upload"),
        (f"/images/{SHA}.svg", "no address that an upload"),
        (f"/images/{SHA.upper()}.jpg", "no address that an upload"),
        (f"/images/../{SHA}.jpg", "no address that an upload"),
        (f"/images/{SHA}.jpg\n", "no address that an upload"),
        (f"/images/{SHA}.jpg?x", "no address that an upload"),
        (f"http://gateway.example{OWN}", "neither"),
        (f"//img.example.com{OWN}", "neither"),
        ("/static/favicon.svg", "neither"),
        ("http://img.example.com/a.jpg", "neither"),
        ("https://img.example.com", "neither"),
        ("https://ann:pw@img.example.com/a.jpg", "neither"),
        ("https://img.example.com/a b.jpg", "neither"),
        ("https://img.example.com/a.jpg#x", "neither"),
        ('https://img.example.com/"onerror=', "neither"),
        ("https://img.example.com\\@evil.example/a.jpg", "neither"),
        ("javascript:alert(1)", "neither"),
        ("data:image/png;base64,AAAA", "neither"),
        ("https://evil.example/a.jpg", "IMAGE_HOSTS"),
        ("https://img.example.com.evil.example/a.jpg", "IMAGE_HOSTS"),
        ("https://img.example.com:444/a.jpg", "IMAGE_HOSTS"),
        ("https://img.example.com/" + "a" * 500, "more than 500"),
    ],
)
def test_refused(url: str, why: str) -> None:
    with pytest.raises(TermsInvalid, match=f"number 2 .*{why}") as refused:
        checked_urls([OWN, url], HOSTS)
    assert refused.value.field == "image_urls"


def test_without_hosts_only_what_was_uploaded_here() -> None:
    with pytest.raises(TermsInvalid, match="upload the image"):
        checked_urls(["https://img.example.com/a.jpg"], frozenset())


def test_how_many() -> None:
    urls = [f"/images/{number:064x}.png" for number in range(PER_ITEM_MAX + 1)]
    assert len(checked_urls(urls[:-1], HOSTS)) == PER_ITEM_MAX
    with pytest.raises(TermsInvalid, match="may have 12"):
        checked_urls(urls, HOSTS)
    with pytest.raises(TermsInvalid, match="twice"):
        checked_urls([OWN, OWN], HOSTS)


def test_names() -> None:
    assert kind_named(f"{SHA}.webp") is Kind.WEBP
    assert kind_named(f"{SHA}.gif") is None
    assert own_names([OWN, "https://img.example.com/a.jpg"]) == [f"{SHA}.jpg"]


def test_hosts_of_the_setting() -> None:
    assert checked_hosts(["img.example.com", "a:8443"]) == {"img.example.com", "a:8443"}
    for name in ("https://img.example.com", "img.example.com/x", "*", "*.example.com", "a; script-src *", "", "a b"):
        with pytest.raises(ValueError, match="host names"):
            checked_hosts([name])
