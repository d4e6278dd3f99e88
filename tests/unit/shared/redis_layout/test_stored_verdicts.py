from __future__ import annotations

from shared.redis_layout.stored_verdicts import (
    StoredVerdict,
    field_of_bid_id,
    field_of_first,
    field_of_other,
    fields_for,
    find_verdict,
)


def test_a_verdict_is_read_as_it_was_written() -> None:
    stored = StoredVerdict("ada", "100,250", b"A|x|1|100|100|1|101|1|bid|1|5")
    assert stored.encode() == b"ada\n100,250\nA|x|1|100|100|1|101|1|bid|1|5"
    assert StoredVerdict.decode(stored.encode()) == stored


def test_no_two_keys_share_a_field() -> None:
    """A header key may be any visible characters; so it may look like the field of another one."""
    keys = ["k", "ada|k", "b:k", "u:ada|k", "h:k", "|"]
    fields = [field_of_bid_id("k"), *(field_of_first(key) for key in keys)]
    fields += [field_of_other(user, key) for user in ("ada", "bob") for key in keys]
    assert len(set(fields)) == len(fields)


def test_whose_verdict_is_found() -> None:
    def stored(user: str) -> bytes:
        return StoredVerdict(user, "1,", b"R").encode()

    found = {
        field_of_first("k"): stored("ada"),
        field_of_other("bob", "k"): stored("bob"),
        field_of_bid_id("k"): stored("cyd"),
    }
    for user in ("ada", "bob", "cyd"):
        assert set(fields_for(user, "k")) >= {field for field, value in found.items() if value == stored(user)}
        one = find_verdict(found, user, "k")
        assert one is not None
        assert one.user_id == user
    assert find_verdict(found, "dee", "k") is None
    for expected in ("cyd", "ada"):
        one = find_verdict(found, None, "k")
        assert one is not None
        assert one.user_id == expected
        found.pop(field_of_bid_id("k"), None)
