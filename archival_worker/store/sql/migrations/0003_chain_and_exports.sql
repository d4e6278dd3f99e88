-- Tamper evidence for the archive, and the exports of closed items.

-- How far each item's chain goes: the last event that is in it, and that event's hash. Before the first: 0:-1 and zeros.
CREATE TABLE chains (
    item_id text PRIMARY KEY,
    epoch   integer NOT NULL DEFAULT 0,
    seq     bigint NOT NULL DEFAULT -1,
    hash    bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(hash) = 32)
) WITH (fillfactor = 70);


-- The hash of each archived event, row by row beside bids and events: SHA-256 over the hash before it and the event's
-- canonical content (archival_worker/chain/hashes.py). A table of its own, because an update would write every bid twice, with
-- three index entries each, and this is one insert, off the write path. Append-only.
CREATE TABLE event_hashes (
    item_id text NOT NULL,
    epoch   integer NOT NULL,
    seq     bigint NOT NULL,
    hash    bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (item_id, epoch, seq)
);


-- One row per state in which an item was final and its chain complete. `head` is the chain's hash at (epoch, seq); the
-- export outside of this database holds it too. 'superseded': a later event of the item came before it got through, and
-- the export of that one has everything.
CREATE TABLE exports (
    item_id      text NOT NULL,
    epoch        integer NOT NULL,
    seq          bigint NOT NULL,
    head         bytea NOT NULL CHECK (length(head) = 32),
    state        text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'failing', 'confirmed', 'superseded')),
    tries        integer NOT NULL DEFAULT 0,
    last_error   text,
    due_at       timestamptz NOT NULL DEFAULT now(),
    next_try_at  timestamptz NOT NULL DEFAULT now(),
    object_key   text,
    bytes        bigint,
    sha256       bytea,
    confirmed_at timestamptz,
    PRIMARY KEY (item_id, epoch, seq),
    CHECK ((state = 'confirmed') = (confirmed_at IS NOT NULL))
);

CREATE INDEX exports_open ON exports (next_try_at) WHERE state IN ('due', 'failing');
