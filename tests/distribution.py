"""In which order files run, and which of them in one process, where several run tests beside each other.

Most tests wait, for leases, heartbeats and closes; those of `tests/unit` compute. So files of both kinds take turns,
and no part of a run has only one kind. The longest files begin first: at the end, nobody should wait for one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

_PAGES: Final = "tests/acceptance/{}_in_a_browser.py"
# A process that runs tests of the pages has a browser and one or two platforms, which compute all the while. Those that
# need people who are known come together: the others need one platform.
_TOGETHER: Final = {
    "people who are known": (
        "signed_in/test_signing",
        "test_bidding",
        "signed_in/test_rulings",
        "signed_in/test_selling",
        "signed_in/test_own_lists",
        "signed_in/test_operations",
        "test_notices",
        "signed_in/test_photos",
        "test_keyboard",
        "test_scripts",
    ),
    "people whom nobody asks": (
        "test_accessible",
        "test_room",
        "test_pages",
        "test_pressure",
        "test_foreign_pages",
        "profiles/test_pool",
    ),
}
_OF_PAGES: Final = {_PAGES.format(name): group for group, names in _TOGETHER.items() for name in names} | {
    "tests/acceptance/test_metrics.py": "people whom nobody asks"
}
# These share a gateway.
_ACCESS: Final = tuple(f"tests/integration/gateway/identity/test_{name}.py" for name in ("access", "tokens"))
_RULINGS: Final = tuple(f"tests/integration/gateway/rulings/test_{name}.py" for name in ("rulings", "limits"))
GROUP_OF: Final = _OF_PAGES | dict.fromkeys(_ACCESS, "who may call what") | dict.fromkeys(_RULINGS, "who may bid")
"""Files of which one process runs all of the same group. They are neighbours in ``LONGEST``: a fixture for all of
them is made once."""

# Of about twenty seconds and more, the longest first.
LONGEST: Final = (
    *_OF_PAGES,
    "tests/integration/gateway/items/test_lifecycle.py",
    "tests/integration/eviction/test_losses.py",
    "tests/integration/loss/test_what_redis_forgot.py",
    "tests/integration/gateway/http/test_fuzzed_requests.py",
    "tests/faults/test_failover.py",
    "tests/integration/gateway/http/test_one_against_all.py",
    "tests/integration/stack/test_bidding_command.py",
    "tests/integration/eviction/test_interleavings.py",
    "tests/integration/aws/test_deploy_cut.py",
    "tests/integration/aws/test_deploy.py",
    "tests/integration/stack/test_documented_commands.py",
    "tests/integration/retention/test_retention.py",
    "tests/unit/shared/domain/test_voiding.py",
    "tests/integration/read_cache/test_jetstream_membership.py",
    "tests/integration/gateway/bids/test_acknowledgement.py",
    "tests/integration/archive/test_archival_outages.py",
    "tests/integration/cache_node/test_closed_items.py",
    "tests/integration/eviction/test_life.py",
    "tests/integration/stack/test_experiments.py",
    "tests/integration/feed/edge/test_feed_edge.py",
    "tests/integration/redis_cluster/test_platform.py",
    "tests/integration/gateway/identity/test_rate_limits.py",
    "tests/integration/loss/test_recover.py",
    "tests/integration/gateway/identity/test_withdrawn_keys.py",
    "tests/integration/gateway/items/test_item_reads.py",
    "tests/integration/loss/test_recover_all_of_it.py",
    "tests/integration/chain/test_exports.py",
    "tests/integration/gateway/items/test_images.py",
    *_RULINGS,
    "tests/integration/loss/test_recover_exactly.py",
    "tests/faults/test_memory.py",
    "tests/faults/test_servers.py",
    "tests/integration/gateway/bids/test_bid_sockets.py",
    "tests/integration/cache_node/test_nats_cluster.py",
    "tests/integration/archive/test_missing_entries.py",
    "tests/integration/feed/test_broadcast_service.py",
    *_ACCESS,
    "tests/integration/loss/test_relay.py",
    "tests/integration/gateway/items/test_voids.py",
    "tests/integration/gateway/rulings/test_spending.py",
    "tests/acceptance/test_one_bid_end_to_end.py",
    "tests/integration/read_cache/test_node_processes.py",
    "tests/integration/loss/test_lost_items.py",
    "tests/integration/stack/test_demo.py",
    "tests/integration/loss/test_two_recoveries.py",
    "tests/integration/feed/test_aliases_and_tickets.py",
    "tests/integration/stack/test_stack.py",
)


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """`--dist loadfile`, where several files may be one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return GROUP_OF.get(file, file)


def sort(items: list[pytest.Item], root: Path) -> None:
    """Put the longest files first, in their order, and then those that wait and those that compute in turn.

    Raises:
        UsageError: a file that is named here is not there.
    """
    if missing := [name for name in LONGEST if not (root / name).exists()]:
        raise pytest.UsageError(f"tests/distribution.py names files that are not there: {', '.join(missing)}")
    places = in_order(dict.fromkeys(str(item.path.relative_to(root)) for item in items))
    items.sort(key=lambda item: places[str(item.path.relative_to(root))])


def in_order(files: Iterable[str]) -> dict[str, tuple[float, str]]:
    """The sort key of each of these files."""
    places = {name: (float(place - len(LONGEST)), name) for place, name in enumerate(LONGEST)}
    rest = [name for name in files if name not in places]
    for computes in (True, False):
        kind = [name for name in rest if name.startswith("tests/unit/") is computes]
        places |= {name: ((place + 0.5) / len(kind), name) for place, name in enumerate(kind)}
    return places
