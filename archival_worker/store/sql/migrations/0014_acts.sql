-- What operators did to the platform itself, and not to an item or a bidder: tokens and API keys revoked, dead letters tried again,
-- shards rebuilt. Append-only; never a secret: an API key is named by its id.
--
-- What a gateway was told comes beside the events of an outbox entry (shared/sealed.py), which is its place. What a command did is
-- written in the same transaction as that, and has no place. `login`: who of PostgreSQL's logins wrote the row, said by PostgreSQL
-- itself. `actor`: whom the token named, or who ran the command, as they say.
CREATE TABLE acts (
    act_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard       text,
    shard_epoch integer,
    n           bigint,
    at          integer,
    act         text NOT NULL,
    target      text NOT NULL,
    reason      text NOT NULL,
    actor       text NOT NULL,
    login       text NOT NULL DEFAULT session_user,
    done_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (shard, shard_epoch, n, at)
);


-- How many items of the shard are retired (migration 0013, which must not lock shards against reading for as long as it takes). It is
-- read with the lock that everybody takes who writes, and while it is 0 nobody asks whether an item is.
ALTER TABLE shard_cursors ADD COLUMN retired bigint NOT NULL DEFAULT 0;
