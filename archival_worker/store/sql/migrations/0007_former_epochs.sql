-- What comes of an epoch that is over is a dead letter of its own kind (archival_worker/store/sql/queries.sql, read_fences), and the
-- runs of `recover` are numbered, so that a later one can take over from an earlier one and never the other way round.
ALTER TABLE dead_letters
    DROP CONSTRAINT dead_letters_reason_check,
    ADD CONSTRAINT dead_letters_reason_check CHECK (reason IN ('poison', 'clash', 'former_epoch')),
    DROP CONSTRAINT dead_letters_outcome_check,
    ADD CONSTRAINT dead_letters_outcome_check CHECK (outcome IN ('stored', 'poison', 'clash', 'former_epoch'));

CREATE SEQUENCE recovery_runs;
