"""A relay's turn that only moves cursors."""

from __future__ import annotations

from collections.abc import Sequence

from api_gateway.engine.relay.shard_scripts import Advance, ShardScripts, Turn


async def advance_published(
    scripts: ShardScripts, advances: Sequence[Advance], *, token: str, stream_id: str
) -> list[bool]:
    """Move `published` cursors, one of each shard; whether each is there now."""
    turns = await scripts.turn({each.shard: each for each in advances}, {}, token=token, stream_id=stream_id, count=0)
    moved: list[bool] = []
    for each in advances:
        turn = turns[each.shard]
        assert isinstance(turn, Turn), turn
        moved.append(turn.moved)
    return moved
