"""``python -m archival_worker retention``: what was over long ago leaves the archive, once its export was read back."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextlib import AsyncExitStack
from typing import Final

import click
from redis.exceptions import RedisError
from typing_extensions import override

from archival_worker.chain.sinks import ReadableSink
from archival_worker.commands.audit import sink_of
from archival_worker.errors import RetentionRefused
from archival_worker.retiring.options import OLDER_THAN_S_MIN, RetentionOptions, RetentionReport
from archival_worker.retiring.retirement import Retirement
from archival_worker.settings import Settings
from archival_worker.store.archive import Archive
from shared import names
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.domain.errors import BiddingError
from shared.server_urls import without_password

EXIT_FAULTY: Final = 1
EXIT_REFUSED: Final = 3

_NAME: Final = "archival-worker-retention"
_DAY_S: Final = 86_400.0
_DAYS: Final = re.compile(r"[1-9][0-9]{0,4}d")
# The log of an item may be very long, and nothing else waits for these connections.
_STATEMENT_TIMEOUT_S: Final = 600.0
_TOLD_MAX: Final = 20


class Age(click.ParamType[float]):
    """A number of days such as ``400d``; its value is in seconds."""

    name = "days"

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if _DAYS.fullmatch(str(value)) is None or int(str(value)[:-1]) * _DAY_S < OLDER_THAN_S_MIN:
            self.fail(f"{value!r} is not a number of days, two or more, such as 400d", param, ctx)
        return int(str(value)[:-1]) * _DAY_S


@click.command("retention")
@click.option(
    "--older-than", "older_than_s", type=Age(), required=True, help="Least time since the end of an item, such as 400d."
)
@click.option("--remove", is_flag=True, help="Remove the bids. Without this, only say what would be removed.")
@click.option(
    "--items-max", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True, help="Most in a run."
)
@click.option("--by", "actor", default="operator", show_default=True, help="Who retires them, for the record.")
@click.pass_obj
def retention(settings: Settings, older_than_s: float, remove: bool, items_max: int, actor: str) -> None:
    """Retire items that were over long ago: from then on their logs are in their exports alone.

    An item stays as long as Redis has it, or if its export cannot be read back, or does not fit. The services go on
    meanwhile. If this is stopped or killed, run it again.

    Exit codes: 0 done, 1 items stay because their export or log is wrong, 3 nothing was done.
    """
    if not names.is_user_id(actor):
        raise click.BadParameter("1 to 64 characters of A-Z a-z 0-9 _ . @ -", param_hint="--by")
    options = RetentionOptions(older_than_s, remove, actor, items_max)
    try:
        with sink_of(settings) as sink:
            if sink is None:
                raise RetentionRefused("set EXPORT_DIR or EXPORT_S3_BUCKET to where the exports are")
            report = asyncio.run(_retire(settings, options, sink))
    except RetentionRefused as error:
        click.echo(f"Nothing was done: {error}.")
        sys.exit(EXIT_REFUSED)
    except (BiddingError, RedisError, OSError, TimeoutError) as error:
        raise click.ClickException(
            f"{str(error) or type(error).__name__}\nWhat is retired stays so. Run this again for the rest."
        ) from error
    for line in summary(report, remove=remove):
        click.echo(line)
    if report.faulty:
        sys.exit(EXIT_FAULTY)


async def _retire(settings: Settings, options: RetentionOptions, sink: ReadableSink) -> RetentionReport:
    # Operators mix up servers, and nothing else shows to which deployment these belong.
    servers = [without_password(settings.redis_url), without_password(settings.postgres_url), sink.place]
    click.echo("Servers: " + ", ".join(servers))
    async with AsyncExitStack() as stack:
        redis = open_redis(settings.redis_url, timeout_s=30.0, connections_max=2)
        stack.push_async_callback(redis.aclose)
        connections_max = options.at_once + 2
        pool = await open_postgres(
            settings.postgres_url, name=_NAME, connections_max=connections_max, timeout_s=_STATEMENT_TIMEOUT_S
        )
        stack.callback(pool.terminate)
        run = Retirement(Archive(pool), redis, sink, options, tell=click.echo)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, run.request_stop)
        return await run.run()


def summary(report: RetentionReport, *, remove: bool) -> list[str]:
    """The lines that an operator must read after a run."""
    logs = f"{report.bids} bids, {report.events} events"
    if remove:
        resumed = f", {report.resumed} of them begun by an earlier run" if report.resumed else ""
        lines = [f"Retired {report.retired} items{resumed}: {logs}; {report.rows} rows are removed."]
    else:
        lines = [f"Would retire {report.retired} items: {logs}. Nothing was changed; do it with --remove."]
    lines.append(f"Looked at {report.looked_at} items.")
    lines += [f"{count} stay that are {why}." for why, count in sorted(report.stays.items()) if count]
    if report.faulty:
        lines.append(f"{report.faulty} stay whose export or log is not as it should be; look at them by hand:")
        lines += [f"  {item_id}: {what}" for item_id, what in list(report.faults.items())[:_TOLD_MAX]]
        if report.faulty > _TOLD_MAX:
            lines.append(f"  and {report.faulty - _TOLD_MAX} more")
    if report.stopped:
        lines.append("It stopped before the end; run it again for the rest.")
    return lines
