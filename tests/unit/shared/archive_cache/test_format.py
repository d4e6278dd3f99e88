"""Nodes and readers of two versions share one ring during an upgrade."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from shared.aliases import naming
from shared.archive_cache import reads
from shared.redis_layout.item_hash import ItemState

# By format: the shape of what one process decodes of what another one has kept.
SHAPES = {1: "7d63335df3d9e94b", 2: "5f779c7126e00d7b", 3: "42bf22687c23f9d6", 4: "42bf22687c23f9d6"}


def test_what_is_kept_has_another_format_when_its_shape_changes() -> None:
    """Where this fails, raise FORMAT, unless the version before can read what is written now, and the other way round.
    Then write down the new digest."""
    shape = msgspec.json.encode(msgspec.json.schema(ItemState), order="sorted")
    assert SHAPES[reads.FORMAT] == blake2b(shape, digest_size=8).hexdigest()


def test_each_group_is_named_by_the_format_and_by_who_bidders_are() -> None:
    for kind in ("items", "pages", "catalogue"):
        assert reads.name_of_group(kind) == f"{kind}-{reads.FORMAT}-{naming()}"
