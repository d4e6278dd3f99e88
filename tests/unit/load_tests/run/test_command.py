"""The command: what it refuses before anything is started."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from load_tests.run.command import EXIT_NO_RUN, main
from load_tests.run.tag import run_tag
from shared.names import is_item_id


@pytest.mark.parametrize("duration", ["0", "-5s", "soon", "25h", "1.5s", ""])
def test_a_duration_that_is_none_is_a_usage_error(duration: str) -> None:
    outcome = CliRunner().invoke(main, ["--duration", duration])
    assert outcome.exit_code == EXIT_NO_RUN
    assert "not a duration from 1s to 24h" in outcome.output


@pytest.mark.parametrize("arguments", [["--users", "1"], ["--items", "0"], ["--bid-weight", "0"]])
def test_numbers_out_of_range_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == EXIT_NO_RUN


def test_half_a_platform_is_refused(tmp_path: object) -> None:
    outcome = CliRunner(env={"GATEWAY_URL": "", "NATS_URL": "", "POSTGRES_URL": ""}).invoke(
        main, ["--redis-url", "redis://127.0.0.1:1", "--data-dir", str(tmp_path)]
    )
    assert outcome.exit_code == EXIT_NO_RUN
    assert "GATEWAY_URL, NATS_URL, POSTGRES_URL must be set too" in outcome.output


def test_tags_make_legal_item_ids_and_differ() -> None:
    tags = [run_tag(), run_tag()]
    assert tags[0] != tags[1]
    assert all(is_item_id(f"load-{tag}-1000") for tag in tags)
