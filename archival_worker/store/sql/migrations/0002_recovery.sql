-- What becomes of a dead letter that is retried. The row stays, whatever happens: it is the history of an accident.
ALTER TABLE dead_letters
    ADD COLUMN retried_at timestamptz,
    ADD COLUMN outcome text CHECK (outcome IN ('stored', 'poison', 'clash'));


-- Which shard epochs `recover` has given out. They are written down before anything is rebuilt, so that no epoch is given
-- out twice, even where Redis is lost again before a single event of the new epoch was archived.
CREATE TABLE recoveries (
    shard       text NOT NULL,
    shard_epoch integer NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    items       bigint,
    verdicts    bigint,
    PRIMARY KEY (shard, shard_epoch)
);


-- The inverse of instant_of.
CREATE FUNCTION us_of(at timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (extract(epoch FROM at) * 1000000)::bigint;
