-- The archive of all items and events. Amounts are integer minor units of the item's currency; instants are UTC.
--
-- Written by the archival worker alone; the gateway reads items and bids for lists and histories.

-- Microseconds since the Unix epoch as an instant, exact to the microsecond.
CREATE FUNCTION instant_of(us bigint) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN 'epoch'::timestamptz + us * interval '1 microsecond';


-- One row per item: its terms, and the newest state that was archived, a max-register by (epoch, seq).
--
-- Until an item's `created` event is archived (another archiver may hold it), its terms are null or empty and created_at
-- is null: lists leave such rows out.
CREATE TABLE items (
    item_id           text PRIMARY KEY,
    -- Terms. They never change.
    name              text NOT NULL DEFAULT '',
    description       text NOT NULL DEFAULT '',
    seller_id         text,
    currency          text NOT NULL,
    start_price       bigint,
    reserve_price     bigint,
    buy_now_price     bigint,
    increment_kind    text,
    increment_value   bigint,
    increment_steps   text NOT NULL DEFAULT '',
    soft_close        text NOT NULL DEFAULT '',
    auto_opened       boolean NOT NULL DEFAULT false,
    start_at          timestamptz,
    original_end_at   timestamptz,
    created_at        timestamptz,
    -- State.
    epoch             integer NOT NULL,
    seq               bigint NOT NULL,
    current_bid       bigint NOT NULL,
    highest_bidder_id text,
    bid_count         bigint NOT NULL,
    min_next_bid      bigint NOT NULL,
    status            text NOT NULL,
    reserve_met       boolean NOT NULL,
    end_at            timestamptz,
    updated_at        timestamptz NOT NULL
) WITH (fillfactor = 70);

-- For lists with keyset cursors. No index holds a column that a bid changes, so that the update which every batch makes
-- stays within the page (a HOT update; hence also the fill factor).
CREATE INDEX items_by_created ON items (created_at DESC, item_id DESC);
CREATE INDEX items_by_status_created ON items (status, created_at DESC, item_id DESC);
CREATE INDEX items_by_end ON items (end_at, item_id);
CREATE INDEX items_by_status_end ON items (status, end_at, item_id);


-- Every accepted bid, automatic ones (kind 'proxy') among them. The primary key serves an item's history, newest first.
CREATE TABLE bids (
    item_id      text NOT NULL,
    epoch        integer NOT NULL,
    seq          bigint NOT NULL,
    bid_id       text NOT NULL,
    user_id      text NOT NULL,
    -- The price that this bid made visible, and the price before it.
    amount       bigint NOT NULL,
    previous_bid bigint NOT NULL,
    kind         text NOT NULL,
    status       text NOT NULL DEFAULT 'valid' CHECK (status IN ('valid', 'voided')),
    -- Who led after this bid where that is not user_id: a standing maximum beat it.
    leader_id    text,
    placed_at    timestamptz NOT NULL,
    PRIMARY KEY (item_id, epoch, seq),
    UNIQUE (item_id, epoch, bid_id)
);

CREATE INDEX bids_by_user ON bids (user_id, placed_at DESC);


-- Every sequenced event that is not a bid, with its whole body as it was on the wire. Together with bids this is the
-- complete log of an item: the seq of both, merged, count from 0 without a gap within an epoch. Append-only.
CREATE TABLE events (
    item_id text NOT NULL,
    epoch   integer NOT NULL,
    seq     bigint NOT NULL,
    type    text NOT NULL,
    body    jsonb NOT NULL,
    at      timestamptz NOT NULL,
    PRIMARY KEY (item_id, epoch, seq)
);

CREATE INDEX events_voided ON events (item_id) WHERE type = 'voided';


-- How far each shard's outbox is archived. `ahead`: entries past a gap, as pairs (first, last) in one flat array.
CREATE TABLE shard_cursors (
    shard       text PRIMARY KEY,
    shard_epoch integer NOT NULL DEFAULT 0,
    archived_n  bigint NOT NULL DEFAULT 0,
    ahead       bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- All of them from the start: a transaction locks the rows of its shards before it writes anything.
INSERT INTO shard_cursors (shard) SELECT 's' || lpad(n::text, 2, '0') FROM generate_series(0, 63) AS n;


-- What could not be stored as what it says it is. Nothing is thrown away: `data` is the message ('poison') or the event
-- ('clash': its place in the item's log is taken by something else), as received.
CREATE TABLE dead_letters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason      text NOT NULL CHECK (reason IN ('poison', 'clash')),
    detail      text NOT NULL,
    subject     text NOT NULL,
    stream_seq  bigint NOT NULL,
    shard       text,
    shard_epoch integer,
    n           bigint,
    data        bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);

-- A message that is delivered twice is one dead letter.
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (reason, subject, sha256(data));
