"""The addresses of images: of those that are kept here, and of those on other hosts that the operator names. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from api_gateway.images.picture import Kind
from shared.domain.errors import TermsInvalid

PREFIX: Final = "/images/"
PER_ITEM_MAX: Final = 12
URL_CHARACTERS_MAX: Final = 500

_KINDS: Final = {kind.suffix: kind for kind in Kind}
_NAME: Final = re.compile(rf"([0-9a-f]{{64}})\.({'|'.join(_KINDS)})")
# What RFC 3986 allows in a path and a query, without a fragment, without a user and a password.
_ELSEWHERE: Final = re.compile(r"https://([A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?)/[A-Za-z0-9._~%!$&'()*+,;=:@/?-]*")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?")


def name_of(sha256: str, kind: Kind) -> str:
    """The name of an image with this content."""
    return f"{sha256}.{kind.suffix}"


def kind_named(name: str) -> Kind | None:
    """The type of the image with this name; None where no image can have it."""
    found = _NAME.fullmatch(name)
    return None if found is None else _KINDS[found[2]]


def own_names(urls: Sequence[str]) -> list[str]:
    """The names of those that are kept here."""
    return [url.removeprefix(PREFIX) for url in urls if url.startswith(PREFIX)]


def checked_urls(urls: Sequence[str], hosts: frozenset[str]) -> tuple[str, ...]:
    """The addresses of an item's images as a seller sent them. ``hosts``: other ones on which images may be.

    Raises:
        TermsInvalid: says which is wrong, and why.
    """
    if len(urls) > PER_ITEM_MAX:
        raise TermsInvalid("image_urls", f"an item may have {PER_ITEM_MAX} images")
    for number, url in enumerate(urls, start=1):
        fault = _fault(url, hosts)
        if fault is not None:
            raise TermsInvalid("image_urls", f"number {number} {fault}")
    if len(set(urls)) < len(urls):
        raise TermsInvalid("image_urls", "an image is there twice")
    return tuple(urls)


def _fault(url: str, hosts: frozenset[str]) -> str | None:
    if url.startswith(PREFIX):
        return None if kind_named(url.removeprefix(PREFIX)) else "is no address that an upload was answered with"
    if len(url) > URL_CHARACTERS_MAX:
        return f"has more than {URL_CHARACTERS_MAX} characters"
    found = _ELSEWHERE.fullmatch(url)
    if found is None:
        return "is neither the address of an uploaded image (POST /api/v1/images) nor a plain https address"
    if found[1].lower() not in hosts:
        return "is on a host that IMAGE_HOSTS does not name; upload the image (POST /api/v1/images)"
    return None


def checked_hosts(names: Sequence[str]) -> frozenset[str]:
    """Hosts, each perhaps with a port, as the policy of the pages names them.

    Raises:
        ValueError: a part is not a host.
    """
    for name in names:
        if _HOST.fullmatch(name) is None:
            raise ValueError("must be host names such as img.example.com, without https:// and without a path")
    return frozenset(names)
