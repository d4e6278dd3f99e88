"""How long a command follows a shard from node to node."""

from __future__ import annotations

from typing import Final

REDIRECTS_MAX: Final = 16
"""How often one command is sent, at most. More than two are rare."""
MOVING_S: Final = 0.5
"""How long a command waits, at most, for a shard that is on its way to another node."""
PAUSE_S: Final = 0.02
"""The pause between two tries while the shard is on its way."""
