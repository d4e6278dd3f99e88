"""The statements of ``sql/*.sql``, by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, TypeVar

from shared.sql_files import read_statements

_FILE: Final = Path(__file__).parent / "sql" / "queries.sql"
_CHAIN_FILE: Final = _FILE.with_name("chain.sql")
_EVICTION_FILE: Final = _FILE.with_name("eviction.sql")
_RETENTION_FILE: Final = _FILE.with_name("retention.sql")


@dataclass(frozen=True, slots=True)
class Queries:
    """One field per statement of the file, under the same name."""

    make_safe: str
    lock_cursors: str
    read_fences: str
    read_retired: str
    read_cursors: str
    move_cursors: str
    find_events_among: str
    before_copy: str
    undo_copy: str
    insert_bids: str
    find_bid_clashes: str
    insert_events: str
    find_event_clashes: str
    insert_sealed: str
    find_sealed_clashes: str
    insert_rulings: str
    find_ruling_clashes: str
    insert_acts: str
    find_act_clashes: str
    record_act: str
    list_acts: str
    read_house_rulings: str
    read_spending_limits: str
    apply_voids: str
    apply_voids_to_late: str
    store_terms: str
    store_states: str
    insert_dead_letters: str
    count_dead_letters: str
    list_dead_letters: str
    lock_dead_letter: str
    mark_dead_letter: str
    known_shards: str
    begin_recovery: str
    next_run: str
    end_recovery: str
    has_item: str
    read_item_ids: str
    show_read_only: str


@dataclass(frozen=True, slots=True)
class ChainQueries:
    """One field per statement of ``chain.sql``, under the same name."""

    relax: str
    find_behind: str
    begin_chains: str
    lock_chains: str
    read_unchained: str
    insert_hashes: str
    note_bidders: str
    move_chains: str
    add_exports: str
    claim_export: str
    confirm_export: str
    fail_export: str
    count_exports: str
    read_item: str
    read_chain: str
    read_rows: str
    find_orphan_hash: str
    find_misjudged_bid: str
    read_confirmed: str


@dataclass(frozen=True, slots=True)
class EvictionQueries:
    """One field per statement of ``eviction.sql``, under the same name."""

    read_exported: str
    has_exports: str


@dataclass(frozen=True, slots=True)
class RetentionQueries:
    """One field per statement of ``retention.sql``, under the same name."""

    lock_run: str
    find_old: str
    find_letters: str
    find_open: str
    check: str
    let_stay: str
    read_spans: str
    begin_retiring: str
    count_retired: str
    remove_log: str
    read_retired_item: str


Q = TypeVar("Q", Queries, ChainQueries, EvictionQueries, RetentionQueries)


def load_queries(path: Path = _FILE) -> Queries:
    """The statements of the write path.

    Raises:
        ValueError: the file lacks a statement, has an unknown one, or has one twice.
    """
    return _load(path, Queries)


def load_chain_queries(path: Path = _CHAIN_FILE) -> ChainQueries:
    """The statements of the chain, the audit and the exports.

    Raises:
        ValueError: as above.
    """
    return _load(path, ChainQueries)


def load_eviction_queries(path: Path = _EVICTION_FILE) -> EvictionQueries:
    """The statements of the eviction.

    Raises:
        ValueError: as above.
    """
    return _load(path, EvictionQueries)


def load_retention_queries(path: Path = _RETENTION_FILE) -> RetentionQueries:
    """The statements of the retention.

    Raises:
        ValueError: as above.
    """
    return _load(path, RetentionQueries)


def _load(path: Path, kind: type[Q]) -> Q:
    """Read a file.

    Raises:
        ValueError: it lacks a statement, has an unknown one, or has one twice.
    """
    found = read_statements(path)
    expected = {field.name for field in fields(kind)}
    if found.keys() != expected:
        raise ValueError(f"{path.name} does not fit the code: {sorted(found.keys() ^ expected)}")
    return kind(**found)
