"""The ring against two other implementations, and what a change of its nodes moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uhashring import HashRing

from shared.read_cache.ring import (
    NODES_MAX,
    POINTS_PER_VIRTUAL_NODE,
    VIRTUAL_NODES,
    Node,
    Ring,
    place_of,
    points_of,
)
from tests.searching import examples

KEYS = [f"items/{number}" for number in range(2_000)]


def nodes(count: int, weight: int = 1) -> list[Node]:
    return [Node(f"node-{number}", f"10.0.0.{number}:8001", weight) for number in range(count)]


def naive_owner(key: str, members: list[Node]) -> str:
    """Looks at every point: the nearest one clockwise."""
    place = place_of(key)
    _, name = min(((point - place) % 2**64, node.name) for node in members for point in points_of(node))
    return name


names = st.lists(
    st.tuples(st.text("abcdefghij-0123456789", min_size=1, max_size=12), st.integers(1, 2)),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each[0],
)
keys = st.lists(st.text("abcxyz/0123456789", min_size=1, max_size=20), min_size=1, max_size=6)


@settings(max_examples=examples(25))
@given(names, keys)
def test_the_owner_is_that_of_a_search_over_all_points(members: list[tuple[str, int]], asked: list[str]) -> None:
    found = [Node(name, "127.0.0.1:1", weight) for name, weight in members]
    ring = Ring(found)
    assert [ring.owner(key).name for key in asked] == [naive_owner(key, found) for key in asked]


def test_the_owners_are_those_of_uhashring() -> None:
    """It knows nothing of digests of eight points: it is given our places under the names that it makes of nodes."""
    members = nodes(7)
    points = {f"{node.name}-{index}": point for node in members for index, point in enumerate(points_of(node))}

    def place(name: str) -> int:
        # It looks for the first point after a place, we for the first at or after it.
        return points[name] if name in points else place_of(name) - 1

    other = HashRing(
        nodes=[node.name for node in members], vnodes=VIRTUAL_NODES * POINTS_PER_VIRTUAL_NODE, hash_fn=place
    )
    ring = Ring(members)
    assert len(other.get_points()) == 7 * VIRTUAL_NODES * POINTS_PER_VIRTUAL_NODE
    assert [ring.owner(key).name for key in KEYS] == [other.get_node(key) for key in KEYS]


@settings(max_examples=examples(25))
@given(names, st.integers(0, 5))
def test_only_keys_of_the_node_that_leaves_move(members: list[tuple[str, int]], index: int) -> None:
    ring = Ring(Node(name, "127.0.0.1:1", weight) for name, weight in members)
    leaver = ring.nodes[index % len(ring)]
    after = ring.without(leaver.name)
    for key in KEYS[:100]:
        before = ring.owner(key)
        if before != leaver:
            assert after.owner(key) == before
        assert ring.successor(key, {leaver.name}) == (after.owner(key) if len(after) else None)


@settings(max_examples=examples(25))
@given(names, st.integers(1, 3))
def test_keys_move_only_to_the_node_that_joins(members: list[tuple[str, int]], weight: int) -> None:
    ring = Ring(Node(name, "127.0.0.1:1", each) for name, each in members)
    joiner = Node("the-newcomer", "127.0.0.1:2", weight)
    after = ring.with_node(joiner)
    for key in KEYS[:100]:
        owner = after.owner(key)
        assert owner == joiner or owner == ring.owner(key)


@pytest.mark.parametrize("count", [2, 3, 5, 12, 24])
def test_the_spread_is_within_15_percent(count: int) -> None:
    shares = Ring(nodes(count)).shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert {name: share for name, share in shares.items() if not 0.85 < share * count < 1.15} == {}


@pytest.mark.parametrize("seed", range(12))
def test_the_spread_over_12_nodes_does_not_hang_on_their_names(seed: int) -> None:
    shares = Ring(Node(f"{seed}-ip-10-0-{seed}-{number}", "10.0.0.1:8001") for number in range(12)).shares()
    assert all(0.85 < share * 12 < 1.15 for share in shares.values()), shares


def test_keys_are_spread_as_the_circle_is() -> None:
    ring = Ring(nodes(12))
    counts = dict.fromkeys((node.name for node in ring.nodes), 0)
    for number in range(30_000):
        counts[ring.owner(f"items/{number}/bids").name] += 1
    assert all(0.85 < count * 12 / 30_000 < 1.15 for count in counts.values()), counts


def test_a_weight_of_two_is_twice_the_share() -> None:
    shares = Ring([*nodes(4), Node("big", "10.0.1.1:8001", 2)]).shares()
    assert shares["big"] == pytest.approx(2 / 6, rel=0.15)


def test_about_one_key_in_n_moves() -> None:
    ring = Ring(nodes(4))
    after = ring.with_node(Node("fifth", "10.0.1.1:8001"))
    moved = sum(ring.owner(key) != after.owner(key) for key in KEYS)
    assert 0.15 < moved / len(KEYS) < 0.25


def test_places_are_the_same_everywhere() -> None:
    """A node of another version would look for keys in another place."""
    assert place_of("items/a-lot") == 0x87A844F7DC8FDDC4
    assert points_of(Node("node-1", "10.0.0.1:8001"))[:2] == (14881958045346365607, 6293382625599183017)
    assert Ring(nodes(2)).fingerprint == 14209433905461881525


def test_fingerprints_tell_rings_apart() -> None:
    ring = Ring(nodes(3))
    assert ring.fingerprint == Ring(reversed(nodes(3))).fingerprint
    others = [
        Ring(nodes(2)),
        Ring(nodes(3, weight=2)),
        ring.with_node(Node("node-1", "10.0.0.99:8001")),
    ]
    assert ring.fingerprint not in [other.fingerprint for other in others]


def test_what_cannot_be_a_ring() -> None:
    with pytest.raises(ValueError, match="same name"):
        Ring([Node("a", "127.0.0.1:1"), Node("a", "127.0.0.1:2")])
    with pytest.raises(ValueError, match="at most 64"):
        Ring(nodes(NODES_MAX + 1))
    with pytest.raises(ValueError, match="weight must be 1 to 16"):
        Node("a", "127.0.0.1:1", 0)
    with pytest.raises(LookupError):
        Ring().owner("a")
    assert Ring().successor("a", ()) is None


def test_shares_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a node for its numbers asks for them."""
    ring, counted, count = Ring(nodes(3)), [], Ring._counted_shares

    def counting(self: Ring) -> dict[str, float]:
        counted.append(1)
        return count(self)

    monkeypatch.setattr(Ring, "_counted_shares", counting)
    first = ring.shares()
    first["a stranger"] = 1.0
    assert sum(ring.shares().values()) == pytest.approx(1)
    assert counted == [1]
