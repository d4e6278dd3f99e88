"""The statements' file fits the code."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from archival_worker.store.queries import ChainQueries, Queries, load_chain_queries, load_queries


def test_every_statement_is_there() -> None:
    queries = load_queries()
    for field in fields(Queries):
        assert getattr(queries, field.name).rstrip().endswith(";")


def test_every_statement_of_the_chain_is_there() -> None:
    queries = load_chain_queries()
    for field in fields(ChainQueries):
        assert getattr(queries, field.name).rstrip().endswith(";")


def statements(*names: str) -> str:
    return "-- a comment\n" + "".join(f"-- name: {name}\nSELECT 1;\n\n" for name in names)


ALL = [field.name for field in fields(Queries)]


@pytest.mark.parametrize("names", [ALL[1:], [*ALL, "one_more"], [*ALL, ALL[0]]])
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "queries.sql"
    path.write_text(statements(*names))
    with pytest.raises(ValueError, match=r"queries\.sql"):
        load_queries(path)


def test_a_statement_keeps_its_text(tmp_path: Path) -> None:
    path = tmp_path / "queries.sql"
    path.write_text(statements(*ALL))
    assert load_queries(path).insert_bids == "SELECT 1;"
