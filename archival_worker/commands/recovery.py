"""``python -m archival_worker recover`` and ``dead-letters``: what an operator does by hand."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import click
from redis.exceptions import RedisError

from archival_worker.commands.acting import acting
from archival_worker.errors import RecoveryRefused
from archival_worker.recovery.options import SETTLE_S, RecoverOptions, RecoveryReport
from archival_worker.recovery.recover import Recovery
from archival_worker.settings import Settings
from archival_worker.store.acts import Actor
from archival_worker.store.archive import Archive
from archival_worker.store.dead_letters import DeadLetters, Letter, RetryOutcome
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.domain.errors import BiddingError
from shared.server_urls import without_password

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 3

_NAME: Final = "archival-worker-operator"
# An item may have a very long history, and nothing else waits for this connection.
_STATEMENT_TIMEOUT_S: Final = 600.0

_TOLD_MAX: Final = 20


@asynccontextmanager
async def _opened_archive(settings: Settings) -> AsyncIterator[Archive]:
    pool = await open_postgres(settings.postgres_url, name=_NAME, connections_max=2, timeout_s=_STATEMENT_TIMEOUT_S)
    try:
        yield Archive(pool)
    finally:
        pool.terminate()


# ------------------------------------------------------------------------------------------------------ recover


@click.command("recover")
@click.option("--dry-run", is_flag=True, help="Say what the command would do, and change nothing.")
@click.option(
    "--settle-s",
    type=click.FloatRange(min=0),
    default=SETTLE_S,
    show_default=True,
    help="Seconds to wait for events that a gateway read from the old Redis and still publishes.",
)
@click.option("--without-stream", is_flag=True, help="Do without NATS: events that were not archived do not come back.")
@click.option(
    "--whole-stream",
    is_flag=True,
    help="Read the stream from its beginning, if PostgreSQL was restored to an older state.",
)
@click.option(
    "--item",
    "item_id",
    metavar="ID",
    help="An item that Redis has lost although its shard exists: close this shard and rebuild all of it.",
)
@acting
@click.pass_obj
def recover(
    settings: Settings,
    dry_run: bool,
    settle_s: float,
    without_stream: bool,
    whole_stream: bool,
    item_id: str | None,
    *,
    actor: Actor,
) -> None:
    """Rebuild what Redis has lost, from PostgreSQL and the stream.

    Leave the services running: gateways refuse bids until a shard is rebuilt, and then go on by themselves. Running it
    again is safe; a shard that lives is never touched.

    Exit codes: 0 rebuilt, 1 not or not all of it (run it again), 3 nothing to rebuild.
    """
    options = RecoverOptions(
        dry_run=dry_run,
        settle_s=settle_s,
        whole_stream=whole_stream,
        closed_keep_s=settings.closed_keep_s,
        item_id=item_id,
        actor=actor,
    )
    try:
        report = asyncio.run(_recover(settings, options, with_stream=not without_stream))
    except RecoveryRefused as error:
        click.echo(f"Nothing was done: {error}.")
        sys.exit(EXIT_REFUSED)
    except (BiddingError, RedisError, OSError, TimeoutError) as error:
        raise click.ClickException(
            f"{str(error) or type(error).__name__}\nWhat is reported as back is back. Run this again for the rest."
        ) from error
    for line in summary(report, dry_run=dry_run):
        click.echo(line)
    if report.untouched:
        sys.exit(EXIT_FAILED)


async def _recover(settings: Settings, options: RecoverOptions, *, with_stream: bool) -> RecoveryReport:
    # Operators mix up servers, and nothing else shows to which deployment these belong.
    servers = [settings.redis_url, settings.postgres_url, *([settings.nats_url] if with_stream else [])]
    click.echo("Servers: " + ", ".join(map(without_password, servers)))
    async with AsyncExitStack() as stack:
        redis = open_redis(settings.redis_url, timeout_s=30.0, connections_max=2)
        stack.push_async_callback(redis.aclose)
        archive = await stack.enter_async_context(_opened_archive(settings))
        jetstream = None
        if with_stream:
            link = NatsLink(settings.nats_url, name=_NAME)
            stack.push_async_callback(link.close)
            jetstream = (await link.connected()).jetstream()
        return await Recovery(redis, archive, jetstream, options, tell=click.echo).run()


def summary(report: RecoveryReport, *, dry_run: bool) -> list[str]:
    """The lines that an operator must read after a run."""
    did = "Would rebuild" if dry_run else "Rebuilt"
    lines = [
        f"{did} {len(report.shards)} shards: {report.items} items with {report.events} recent events and "
        f"{report.maxima} maxima, {report.verdicts} verdicts of accepted bids, {report.from_stream} events from the "
        f"stream, {report.from_outbox} from outboxes.",
        "Not archived, so not back: refusals; what was neither published nor archived.",
    ]
    if report.paused:
        lines.append(f"{len(report.paused)} items lack their terms in the archive and are paused; cancel them:")
        lines += _some([f"  {item}: {fault}" for item, fault in report.paused.items()])
    if report.untouched:
        lines.append(f"{len(report.untouched)} shards were left alone; look at them by hand:")
        lines += _some([f"  {shard}: {why}" for shard, why in report.untouched.items()])
    return lines


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _TOLD_MAX
    return [*lines[:_TOLD_MAX], f"  and {more} more"] if more > 0 else list(lines)


# ------------------------------------------------------------------------------------------------------ dead letters


@click.group("dead-letters")
def dead_letters() -> None:
    """What could not be stored: list it, and try again once the cause is mended."""


@dead_letters.command("list")
@click.option("--all", "with_stored", is_flag=True, help="Include those that a retry has settled.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def list_letters(settings: Settings, with_stored: bool, as_json: bool) -> None:
    """Show the dead letters, oldest first."""
    letters = _asked(_list(settings, with_stored=with_stored))
    if as_json:
        click.echo(json.dumps([_as_json(letter) for letter in letters], indent=2))
    else:
        click.echo(table(letters))


@dead_letters.command("retry")
@click.argument("ids", nargs=-1, type=click.IntRange(min=1))
@click.option("--all", "every", is_flag=True, help="Retry all that are not settled yet.")
@acting
@click.pass_obj
def retry_letters(settings: Settings, ids: tuple[int, ...], every: bool, *, actor: Actor) -> None:
    """Store the letters with these IDS again, like any message.

    A letter stays in the table, with the outcome. A `clash` is stored only once its place in the archive is mended:
    until then it is evidence, and nothing removes it. A `former_epoch` is never stored; its retry records that somebody
    has looked at it.

    Exit codes: 0 all of them are stored, 1 some are not.
    """
    if bool(ids) == every:
        raise click.UsageError("Give the ids of letters, or --all.")
    outcomes = _asked(_retry(settings, None if every else ids, actor))
    if not outcomes:
        click.echo("There are no dead letters to retry.")
    if outcomes.keys() - {"stored"}:
        if outcomes.total() > 1:
            click.echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
        sys.exit(EXIT_FAILED)


def _asked(work: Any) -> Any:
    try:
        return asyncio.run(work)
    except (BiddingError, OSError, TimeoutError) as error:
        raise click.ClickException(str(error) or type(error).__name__) from error


async def _list(settings: Settings, *, with_stored: bool) -> Sequence[Letter]:
    async with _opened_archive(settings) as archive:
        return await DeadLetters(archive).list(with_stored=with_stored)


async def _retry(settings: Settings, ids: Sequence[int] | None, actor: Actor) -> Counter[RetryOutcome]:
    """How many letters had which outcome. Each is reported at once: the next one may fail, and this one is stored."""
    outcomes: Counter[RetryOutcome] = Counter()
    async with _opened_archive(settings) as archive:
        letters = DeadLetters(archive)
        if ids is None:
            ids = [letter.id for letter in await letters.list()]
        for letter_id in ids:
            result = await letters.retry(letter_id, actor)
            click.echo(f"{result.id}: {result.outcome}: {one_line(result.text)}")
            outcomes[result.outcome] += 1
    return outcomes


def _as_json(letter: Letter) -> dict[str, Any]:
    fields = asdict(letter)
    return fields | {name: fields[name] and fields[name].isoformat() for name in ("at", "retried_at")}


def table(letters: Sequence[Letter]) -> str:
    """The letters for a terminal. Details vary in length, so they come last."""
    if not letters:
        return "There are no dead letters."
    rows = [("ID", "REASON", "SUBJECT", "ITEM", "N", "AT", "RETRY", "DETAIL")]
    rows += [
        (
            str(letter.id),
            letter.reason,
            one_line(letter.subject),
            letter.item_id or "-",
            "-" if letter.n is None else str(letter.n),
            letter.at.strftime("%Y-%m-%d %H:%M:%S"),
            letter.outcome or "-",
            one_line(letter.detail),
        )
        for letter in letters
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join("  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows)


def one_line(text: str) -> str:
    """A text that may quote a message, safe for a terminal: without line breaks and escape sequences."""
    return "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))
