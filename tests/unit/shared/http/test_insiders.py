"""Who may be told how the platform is doing, by the address from which they ask."""

from __future__ import annotations

import pytest

from shared.http.insiders import OWN_MACHINE, Insiders
from shared.http.proxies import Proxies

XFF = b"x-forwarded-for"


@pytest.mark.parametrize(
    ("peer", "headers", "is_inside"),
    [
        ("127.0.0.1", [], True),
        ("127.8.8.8", [], True),
        ("::1", [], True),
        ("::ffff:127.0.0.1", [], True),
        ("192.0.2.1", [], False),
        (None, [], False),
        ("unix:", [], False),
        # A proxy on this machine that is not named asks for anybody.
        ("127.0.0.1", [(XFF, b"192.0.2.1")], False),
        ("127.0.0.1", [(XFF, b"127.0.0.1")], False),
        ("127.0.0.1", [(b"forwarded", b"for=127.0.0.1")], False),
        # One that is named is believed, but not what its client says of itself.
        ("10.0.0.1", [(XFF, b"127.0.0.1")], True),
        ("10.0.0.1", [(XFF, b"127.0.0.1, 192.0.2.1")], False),
        ("10.0.0.1", [(XFF, b"127.0.0.1"), (XFF, b"192.0.2.1")], False),
        ("10.0.0.1", [(b"forwarded", b"for=127.0.0.1")], False),
        ("10.0.0.1", [], False),
    ],
)
def test_who_is_inside(peer: str | None, headers: list[tuple[bytes, bytes]], is_inside: bool) -> None:
    assert Insiders(OWN_MACHINE, Proxies("10.0.0.0/8")).has(peer, headers) is is_inside


def test_a_network_may_be_named_and_everybody() -> None:
    assert Insiders("192.0.2.0/24", Proxies("")).has("192.0.2.1", [])
    assert not Insiders("192.0.2.0/24", Proxies("")).has("127.0.0.1", [])
    assert Insiders("*", Proxies("")).has("198.51.100.7", [(XFF, b"203.0.113.1")])
    assert not Insiders("", Proxies("")).has("127.0.0.1", [])
