"""The proof after a step, short enough for a table."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2 as httpx
from redis.asyncio import Redis

from load_tests.experiments.common.results import ProofSummary
from load_tests.generator.driver import Load
from load_tests.generator.ledger import Ledger
from load_tests.optimistic.decide import key_of
from load_tests.proof.checks import Verification
from load_tests.proof.settle import prove
from load_tests.proof.verify import Sources
from load_tests.run.report import run_checks

_STATEMENTS_MAX = 10


async def proof_of_step(client: httpx.AsyncClient, sources: Sources, load: Load, ledger: Ledger) -> ProofSummary:
    """Compare clients, Redis, JetStream and PostgreSQL about every item of the step."""
    proof = await prove(client, sources, load.item_ids, ledger)
    return summary(ledger, proof.verifications)


def summary(ledger: Ledger, verifications: Sequence[Verification]) -> ProofSummary:
    """The result of many checks. Lost updates are accepted bids that PostgreSQL or JetStream does not have."""
    checks = [*run_checks(ledger, unknown_allowed=False), *(check for item in verifications for check in item.checks)]
    lost = 0
    for item in verifications:
        stored = min(item.counts.get("rows", 0), item.counts.get("events", 0))
        lost += max(0, item.counts.get("accepted", 0) - stored)
    prices = [check.statement for item in verifications for check in item.checks if check.name == "highest_price_equal"]
    failed = [f"{check.name}: {check.statement}" for check in checks if not check.ok]
    return ProofSummary(
        ok=bool(verifications) and not failed,
        accepted=ledger.accepted,
        lost_updates=lost,
        checks=len(checks),
        highest=prices[0] if len(prices) == 1 else "",
        statements=failed[:_STATEMENTS_MAX],
    )


async def proof_of_yardstick(redis: Redis, load: Load, ledger: Ledger) -> ProofSummary:
    """The yardsticks have no log and no archive: the price and the count in Redis against what clients were told."""
    failed: list[str] = []
    lost = 0
    highest = ""
    for item_id in load.item_ids:
        price, seq = await redis.hmget(key_of(item_id), ["price", "seq"])
        books = ledger.items[item_id]
        # A bid whose answer had not come when the run ended may have been accepted; the yardsticks tell nobody later.
        accepted, unsure = books.accepted, len(books.unknown)
        told, counted = max((entry.amount for entry in accepted), default=0), int(seq or 0)
        highest = f"clients {told / 100:.2f}, Redis {int(price or 0) / 100:.2f}"
        if int(price or 0) < told or (not unsure and int(price or 0) != told):
            failed.append(f"{item_id}: highest accepted bid: {highest}")
        surplus = counted - len(accepted)
        if len({entry.seq for entry in accepted}) != len(accepted) or not 0 <= surplus <= unsure:
            lost += max(abs(surplus), 1)
            failed.append(f"{item_id}: {len(accepted)} bids were accepted, {unsure} unknown, Redis counted {counted}")
    return ProofSummary(
        ok=not failed,
        accepted=ledger.accepted,
        lost_updates=lost,
        checks=2 * len(load.item_ids),
        highest=highest if len(load.item_ids) == 1 else "",
        statements=failed[:_STATEMENTS_MAX],
    )
