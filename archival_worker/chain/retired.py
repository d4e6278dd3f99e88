"""Audits a retired item: its log is in its export alone, and the rows that PostgreSQL still has must agree with it."""

from __future__ import annotations

import asyncio

from archival_worker.chain.derived import disagreement_with_export
from archival_worker.chain.hashes import Head, Row, Version
from archival_worker.chain.read_back import Exported, read_back
from archival_worker.chain.report import AuditImpossible, AuditReport, Finding
from archival_worker.chain.sinks import ReadableSink
from archival_worker.errors import ExportDamaged, ExportFailed


async def audit_retired(retired: Row, chain: Head, item: Row | None, sink: ReadableSink | None) -> AuditReport:
    """Read the export back and compare.

    Args:
        retired: the item's row of ``read_retired_item``.
        chain: the end of its chain according to the table ``chains``.
        item: its row of ``read_item``.
        sink: where exports are; None if no place is configured.

    Raises:
        AuditImpossible: the export cannot be read.
    """
    exported = Exported.of(retired)
    name = f"{retired['place']}/{exported.key}"
    if sink is None:
        raise AuditImpossible(
            f"the log of {exported.item_id} is in its export alone, {name}: set EXPORT_DIR or EXPORT_S3_BUCKET, "
            "or use verify-export"
        )
    try:
        verified = await asyncio.to_thread(read_back, sink, exported)
    except ExportDamaged as error:
        return _report(exported, name, 0, Finding(str(exported.head.place), "export", str(error)))
    except (ExportFailed, OSError) as error:
        raise AuditImpossible(f"the log of {exported.item_id} is in its export alone: {error}") from error
    reason = None
    if chain != exported.head:
        reason = "the chain in the archive ends with another event or hash"
    elif item is None:
        reason = "the row of the item is missing"
    elif Version(item["epoch"], item["seq"]) != exported.head.place:
        reason = f"the item's row is at {item['epoch']}:{item['seq']}"
    else:
        reason = disagreement_with_export(item, verified)
    finding = None if reason is None else Finding(str(exported.head.place), "item", reason)
    return _report(exported, name, verified.events, finding)


def _report(exported: Exported, name: str, fits: int, finding: Finding | None) -> AuditReport:
    return AuditReport(
        item_id=exported.item_id,
        fits=fits,
        up_to=str(exported.head.place),
        head=exported.head.hash.hex(),
        waiting=0,
        finding=finding,
        export=name,
    )
