"""What can go wrong in the archive. Driver errors are translated into these at the edge."""

from __future__ import annotations

from shared.domain.errors import BiddingError


class ArchiveUnavailable(BiddingError):
    """PostgreSQL cannot store anything now: it is unreachable, read-only or full, or lacks the schema.

    Nothing is lost; try later. Whether a COMMIT under way succeeded is unknown; storing the messages again is harmless.
    """

    code = "ARCHIVE_UNAVAILABLE"


class MessageRefused(BiddingError):
    """PostgreSQL refuses the data itself, and always will. Nothing of the transaction was stored."""

    code = "MESSAGE_REFUSED"


class LetterUnknown(BiddingError):
    """There is no dead letter with this number."""

    code = "LETTER_UNKNOWN"

    def __init__(self, letter_id: int) -> None:
        self.letter_id = letter_id
        super().__init__(f"there is no dead letter {letter_id}")


class RecoveryRefused(BiddingError):
    """There is nothing to rebuild, or it must not be rebuilt now."""

    code = "RECOVERY_REFUSED"


class RecoveryOvertaken(BiddingError):
    """Another run of `recover` took a shard over from this one. This one has written nothing to it since."""

    code = "RECOVERY_OVERTAKEN"

    def __init__(self, shard: str) -> None:
        self.shard = shard
        super().__init__(
            f"another run of `recover` has taken shard {shard} over, or has opened it; this run stops, and what the "
            "other one wrote stands"
        )


class ShardChanged(BiddingError):
    """A shard was closed, or closed again, after this run read its outbox. Nothing was changed."""

    code = "SHARD_CHANGED"

    def __init__(self) -> None:
        super().__init__("a gateway has closed it in the meantime, and its outbox may have more; run it again")


class MigrationError(BiddingError):
    """The schema cannot be brought up to date; nothing of the failed migration was applied."""

    code = "MIGRATION_ERROR"


class MigrationChanged(MigrationError):
    """A migration that was applied before has other content now."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"migration {name} was applied with other content than it has now; "
            "put the old file back and write the change as a new migration"
        )


class ExportFailed(BiddingError):
    """An export failed or could not be confirmed; it is tried again."""

    code = "EXPORT_FAILED"


class ExportDamaged(ExportFailed):
    """What is stored is not what was confirmed, or does not fit itself."""

    code = "EXPORT_DAMAGED"


class RetentionRefused(BiddingError):
    """No item may retire now. Nothing was changed."""

    code = "RETENTION_REFUSED"


class ExportsMisconfigured(BiddingError):
    """The settings of the exports cannot work; the message says what to change."""

    code = "EXPORTS_MISCONFIGURED"
