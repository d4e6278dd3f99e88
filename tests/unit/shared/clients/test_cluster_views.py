"""Which of several nodes is right about who has a shard."""

from __future__ import annotations

from collections.abc import Mapping

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.slots import SLOTS
from shared.clients.cluster.views import Claim, View, agreed, are_majority

SHARD = "s05"
PLACES = {name: Address(name, 1) for name in "abcd"}


def view(node: str, owner: str, epochs: Mapping[str, int], *, primaries: str = "abc") -> View:
    """What a node says of SHARD."""
    claims = {SHARD: Claim(epochs[owner], owner, PLACES[owner])} if owner else {}
    return View(node, max(epochs.values()), {each: PLACES[each] for each in primaries}, claims)


def owner(*views: View, before: Mapping[str, Claim] | None = None) -> str | None:
    claim = agreed(views, before or {}).get(SHARD)
    return None if claim is None else claim.node


def test_it_is_read_out_of_slots_and_nodes() -> None:
    half = 8_192
    slots = [
        [0, half - 1, [b"10.0.0.1", 7000, b"one", []], [b"10.0.0.9", 7000, b"replica", []]],
        # A node that does not know its own address names none.
        [half, 16_000, [b"", 7001, b"two"]],
    ]
    nodes = (
        b"one 10.0.0.1:7000@17000,host-1 master - 0 1 12 connected 0-8191\n"
        b"two :7001@17001 myself,master - 0 1 7 connected 8192-16000\n"
        b"replica 10.0.0.9:7000@17000 slave one 0 1 12 connected\n"
    )
    found = View.read(slots, nodes, Address("seed", 7001))
    assert (found.node, found.epoch) == ("two", 12)
    assert found.primaries == {"one": ("10.0.0.1", 7000), "two": ("seed", 7001)}
    assert set(found.claims) == {shard for shard, slot in SLOTS.items() if slot <= 16_000}
    for shard, claim in found.claims.items():
        assert claim == ((12, "one", ("10.0.0.1", 7000)) if SLOTS[shard] < half else (7, "two", ("seed", 7001)))


def test_the_higher_epoch_is_newer_whoever_says_it() -> None:
    old, new = view("a", "a", {"a": 1, "b": 2, "c": 3}), view("b", "d", {"d": 4, "b": 2, "c": 3}, primaries="bcd")
    assert owner(old, new) == owner(new, old) == "d"


def test_a_node_knows_best_what_it_has_given_away() -> None:
    """A has given the shard to B, and has got another one since, so its epoch is the highest. C has heard only that."""
    epochs = {"a": 7, "b": 6, "c": 3}
    assert owner(view("a", "b", epochs), view("b", "b", epochs), view("c", "a", epochs)) == "b"


def test_less_than_half_of_the_primaries_take_nothing_back() -> None:
    before = {SHARD: Claim(5, "b", PLACES["b"])}
    old = view("c", "a", {"a": 1, "b": 2, "c": 3})
    assert not are_majority([old])
    assert owner(old, before=before) == "b"
    assert owner(view("c", "", {"c": 3}), before=before) == "b"
    assert owner(view("c", "d", {"d": 6, "c": 3}), before=before) == "d", "what is newer is believed of anybody"
    assert owner(old) == "a", "who knows nothing has to begin somewhere"


def test_more_than_half_may() -> None:
    """As after a cluster was made anew."""
    before = {SHARD: Claim(50, "z", Address("z", 1))}
    epochs = {"a": 1, "b": 2, "c": 3}
    views = [view("a", "a", epochs), view("b", "a", epochs)]
    assert are_majority(views)
    assert owner(*views, before=before) == "a"
    assert owner(view("a", "", epochs), view("b", "", epochs), before=before) is None


def test_a_replica_is_no_part_of_a_majority() -> None:
    epochs = {"a": 1, "b": 2, "c": 3}
    assert not are_majority([view("a", "a", epochs), view("d", "a", epochs)])
    assert not are_majority([])
