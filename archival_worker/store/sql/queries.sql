-- The archive's statements, one after each "name" line; archival_worker/store/queries.py reads them.
--
-- Rows come in as one array per column: one round trip and one plan per table and batch, whatever its size. New bids, which
-- are nearly all rows, come by COPY instead (archival_worker/store/archive.py), and by insert_bids if COPY fails.

-- name: make_safe
-- First in a transaction, for this transaction alone. A worker whose machine vanishes must not keep its locks until TCP
-- notices. And a COMMIT must be on disk when it returns, because the outbox is trimmed after it: if synchronous_commit is off
-- it is turned on; a setting for replicas is kept.
SELECT
    set_config('idle_in_transaction_session_timeout', '30s', true),
    set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), true);

-- name: lock_cursors
-- Before anything else in a transaction, in shard order. Every row that is written belongs to one shard, so from here on
-- two archivers that hold the same messages (redelivery) neither deadlock nor race.
SELECT shard, shard_epoch, archived_n, ahead, retired
FROM shard_cursors
WHERE shard = ANY ($1::text[])
ORDER BY shard
FOR UPDATE;

-- name: read_fences
-- The newest epoch that a recovery gave each of these shards: older epochs are over (archive.py: `write`). It is a statement of
-- its own, after lock_cursors: a statement that waited for a lock sees all other tables as they were before it waited.
--
--   1. A worker has a message of epoch 1, and has not stored it yet.
--   2. `recover` records epoch 2, reads the shard's items, and rebuilds them without that message.
--   3. The worker stores it: as valid, though nobody is shown it, with a number that epoch 2 gives out again.
--
-- Both lock the shard's row in shard_cursors first. So either the worker commits before 2, and the items are rebuilt with its
-- message; or 2 commits before the worker reads this, and the message becomes a dead letter.
SELECT shard, max(shard_epoch) AS epoch FROM recoveries WHERE shard = ANY ($1::text[]) GROUP BY shard;

-- name: read_retired
-- The items among these whose log is in its export alone, with the events that they had. After lock_cursors, like read_fences, because
-- a retirement locks the item's shard first. Only items of shards with retired items are asked for.
SELECT item_id, spans FROM retired_items WHERE item_id = ANY ($1::text[]) AND state <> 'checking';

-- name: read_cursors
SELECT shard, shard_epoch, archived_n FROM shard_cursors;

-- name: move_cursors
UPDATE shard_cursors AS c
SET shard_epoch = t.shard_epoch, archived_n = t.archived_n, ahead = t.ahead::bigint[]
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[]) AS t (shard, shard_epoch, archived_n, ahead)
WHERE c.shard = t.shard;

-- name: find_events_among
-- Events that are stored within these ranges of places. Asked before a COPY of bids: no constraint keeps a bid from the place of
-- another event. A range per item needs few index probes, however many bids are in it.
SELECT among.item_id, among.epoch, among.seq
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS t (item_id, epoch, first, last)
CROSS JOIN LATERAL (
    SELECT item_id, epoch, seq FROM events AS e
    WHERE e.item_id = t.item_id AND e.epoch = t.epoch AND e.seq BETWEEN t.first AND t.last OFFSET 0
) AS among;

-- name: before_copy
-- The cursors stay locked even if the COPY fails.
SAVEPOINT before_copy;

-- name: undo_copy
ROLLBACK TO SAVEPOINT before_copy;

-- name: insert_bids
-- Unlike COPY this skips known bids, and those whose place is taken by another bid or by an event of another type.
-- OFFSET 0 keeps the look-up one index probe per row; the planner would otherwise read the whole table for a large batch.
INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, leader_id, placed_at)
SELECT item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, leader_id, instant_of(at_us)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
            $9::text[], $10::bigint[])
    AS t (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, leader_id, at_us)
WHERE NOT EXISTS (
    SELECT FROM events AS e WHERE e.item_id = t.item_id AND e.epoch = t.epoch AND e.seq = t.seq OFFSET 0
)
ON CONFLICT DO NOTHING;

-- name: find_bid_clashes
-- Run when insert_bids stored fewer rows than it was given: which of them (counted from 1) differ from what is stored?
SELECT t.ordinal::integer AS ordinal
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bigint[])
    WITH ORDINALITY AS t (item_id, epoch, seq, bid_id, user_id, amount, ordinal)
LEFT JOIN LATERAL (
    SELECT bid_id, user_id, amount FROM bids AS b
    WHERE b.item_id = t.item_id AND b.epoch = t.epoch AND b.seq = t.seq OFFSET 0
) AS stored ON true
WHERE (stored.bid_id, stored.user_id, stored.amount) IS DISTINCT FROM (t.bid_id, t.user_id, t.amount)
ORDER BY t.ordinal;

-- name: insert_events
INSERT INTO events (item_id, epoch, seq, type, body, at)
SELECT item_id, epoch, seq, type, body::jsonb, instant_of(at_us)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bigint[])
    AS t (item_id, epoch, seq, type, body, at_us)
WHERE NOT EXISTS (
    SELECT FROM bids AS b WHERE b.item_id = t.item_id AND b.epoch = t.epoch AND b.seq = t.seq OFFSET 0
)
ON CONFLICT DO NOTHING;

-- name: find_event_clashes
-- Another version may have stored the same event with more members, or without those that are null here.
SELECT t.ordinal::integer AS ordinal
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[])
    WITH ORDINALITY AS t (item_id, epoch, seq, type, body, ordinal)
LEFT JOIN LATERAL (
    SELECT type, body FROM events AS e
    WHERE e.item_id = t.item_id AND e.epoch = t.epoch AND e.seq = t.seq OFFSET 0
) AS stored ON true
WHERE stored.type IS DISTINCT FROM t.type
   OR NOT (stored.body @> jsonb_strip_nulls(t.body::jsonb) OR t.body::jsonb @> jsonb_strip_nulls(stored.body))
ORDER BY t.ordinal;

-- name: insert_sealed
INSERT INTO sealed (item_id, epoch, n, at, seq, leader_id, leader_max, runner_up, user_id, bid_id, amount, max_amount, key,
                    verdict, decided_at)
SELECT item_id, epoch, n, at, seq, leader_id, leader_max, runner_up, user_id, bid_id, amount, max_amount, key, verdict,
       instant_of(at_us)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[],
            $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::bigint[])
    AS t (item_id, epoch, n, at, seq, leader_id, leader_max, runner_up, user_id, bid_id, amount, max_amount, key, verdict,
          at_us)
ON CONFLICT DO NOTHING;

-- name: find_sealed_clashes
SELECT t.ordinal::integer AS ordinal
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[],
            $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::bigint[])
    WITH ORDINALITY
    AS t (item_id, epoch, n, at, seq, leader_id, leader_max, runner_up, user_id, bid_id, amount, max_amount, key, verdict,
          at_us, ordinal)
LEFT JOIN sealed AS s ON (s.item_id, s.epoch, s.n, s.at) = (t.item_id, t.epoch, t.n, t.at)
WHERE (s.seq, s.leader_id, s.leader_max, s.runner_up, s.user_id, s.bid_id, s.amount, s.max_amount, s.key, s.verdict,
       us_of(s.decided_at))
    IS DISTINCT FROM (t.seq, t.leader_id, t.leader_max, t.runner_up, t.user_id, t.bid_id, t.amount, t.max_amount, t.key,
                      t.verdict, t.at_us)
ORDER BY t.ordinal;

-- name: insert_rulings
INSERT INTO rulings (shard, shard_epoch, n, at, item_id, seller_id, user_id, ruling, approved, blocked, max_amount, currency, reason,
                     actor, decided_at)
SELECT shard, shard_epoch, n, at, item_id, seller_id, user_id, ruling, approved, blocked, max_amount, currency, reason, actor,
       instant_of(at_us)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::boolean[], $10::boolean[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::bigint[])
    AS t (shard, shard_epoch, n, at, item_id, seller_id, user_id, ruling, approved, blocked, max_amount, currency, reason, actor,
          at_us)
ON CONFLICT DO NOTHING;

-- name: find_ruling_clashes
SELECT t.ordinal::integer AS ordinal
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::boolean[], $10::boolean[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::bigint[])
    WITH ORDINALITY
    AS t (shard, shard_epoch, n, at, item_id, seller_id, user_id, ruling, approved, blocked, max_amount, currency, reason, actor,
          at_us, ordinal)
LEFT JOIN rulings AS r ON (r.shard, r.shard_epoch, r.n, r.at) = (t.shard, t.shard_epoch, t.n, t.at)
WHERE (r.item_id, r.seller_id, r.user_id, r.ruling, r.approved, r.blocked, r.max_amount, r.currency, r.reason, r.actor,
       us_of(r.decided_at))
    IS DISTINCT FROM (t.item_id, t.seller_id, t.user_id, t.ruling, t.approved, t.blocked, t.max_amount, t.currency, t.reason,
                      t.actor, t.at_us)
ORDER BY t.ordinal;

-- name: insert_acts
INSERT INTO acts (shard, shard_epoch, n, at, act, target, reason, actor, done_at)
SELECT shard, shard_epoch, n, at, act, target, reason, actor, instant_of(at_us)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[])
    AS t (shard, shard_epoch, n, at, act, target, reason, actor, at_us)
ON CONFLICT DO NOTHING;

-- name: find_act_clashes
SELECT t.ordinal::integer AS ordinal
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[])
    WITH ORDINALITY AS t (shard, shard_epoch, n, at, act, target, reason, actor, at_us, ordinal)
LEFT JOIN acts AS a ON (a.shard, a.shard_epoch, a.n, a.at) = (t.shard, t.shard_epoch, t.n, t.at)
WHERE (a.act, a.target, a.reason, a.actor, us_of(a.done_at))
    IS DISTINCT FROM (t.act, t.target, t.reason, t.actor, t.at_us)
ORDER BY t.ordinal;

-- name: record_act
-- An act of a command, in the same transaction as what the command does.
INSERT INTO acts (act, target, reason, actor) VALUES ($1, $2, $3, $4);

-- name: list_acts
-- Newest first, in the order in which they were stored; $1: those before this one.
SELECT act_id, done_at, act, target, actor, login, reason FROM acts
WHERE $1::bigint IS NULL OR act_id < $1 ORDER BY act_id DESC LIMIT $2;

-- name: read_house_rulings
-- What holds on bidders for all items, or for those of a seller, and for everybody: the newest ruling of each. `is_recent`: of the
-- last week; one that was taken back before that is in every shard.
SELECT DISTINCT ON (user_id, seller_id) user_id, seller_id, approved, blocked, shard_epoch, n,
       decided_at > now() - interval '7 days' AS is_recent
FROM rulings
WHERE item_id IS NULL AND currency IS NULL
ORDER BY user_id, seller_id, shard_epoch DESC, n DESC, at DESC;

-- name: read_spending_limits
-- What every bidder may spend in a currency: the newest ruling of each, also where it took the limit back, since shards go on
-- counting then.
SELECT DISTINCT ON (user_id, currency) user_id, currency, max_amount, shard_epoch, n
FROM rulings
WHERE item_id IS NULL AND currency IS NOT NULL
ORDER BY user_id, currency, shard_epoch DESC, n DESC, at DESC;

-- name: apply_voids
-- Applies the voids at these places, once they are stored, to all bids of their items. One pass over the item's bids: a join back
-- from a list of fates is planned as a nested loop, and takes minutes on a long history. Voids that were stored before are not
-- applied again: on an item with many, each further one would cost as much as all of them.
WITH voids AS MATERIALIZED (
    SELECT e.item_id, e.epoch, e.seq, e.body ->> 'bid_id' AS struck_id, (e.body ->> 'voided_seq')::bigint AS voided_seq,
           e.body ->> 'bidder_id' AS bidder_id, (e.body ->> 'automatic_until')::bigint AS automatic_until,
           (e.body ->> 'current_bid')::bigint AS price
    FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS t (item_id, epoch, seq)
    JOIN events AS e USING (item_id, epoch, seq)
    WHERE e.type = 'voided'
)
UPDATE bids AS b
SET status = (
    SELECT max(void_fate(v.seq, v.struck_id, v.voided_seq, v.bidder_id, v.automatic_until, v.price,
                         b.seq, b.bid_id, b.user_id, b.kind, b.amount))
    FROM voids AS v WHERE v.item_id = b.item_id AND b.epoch <= v.epoch
)
WHERE b.item_id = ANY (ARRAY(SELECT DISTINCT item_id FROM voids)) AND b.status <> 'voided' AND b.status <> (
    SELECT max(void_fate(v.seq, v.struck_id, v.voided_seq, v.bidder_id, v.automatic_until, v.price,
                         b.seq, b.bid_id, b.user_id, b.kind, b.amount))
    FROM voids AS v WHERE v.item_id = b.item_id AND b.epoch <= v.epoch
);

-- name: apply_voids_to_late
-- Applies all voids of their items to the bids at these places. Run if the batch may bring a bid after the void that strikes it.
WITH voids AS MATERIALIZED (
    SELECT item_id, epoch, seq, body ->> 'bid_id' AS struck_id, (body ->> 'voided_seq')::bigint AS voided_seq,
           body ->> 'bidder_id' AS bidder_id, (body ->> 'automatic_until')::bigint AS automatic_until,
           (body ->> 'current_bid')::bigint AS price
    FROM events
    WHERE type = 'voided' AND item_id = ANY ($1::text[])
), fates AS MATERIALIZED (
    SELECT late.item_id, late.epoch, late.seq, (
        SELECT max(void_fate(v.seq, v.struck_id, v.voided_seq, v.bidder_id, v.automatic_until, v.price,
                             late.seq, late.bid_id, late.user_id, late.kind, late.amount))
        FROM voids AS v WHERE v.item_id = late.item_id AND late.epoch <= v.epoch
    ) AS fate
    FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS t (item_id, epoch, seq)
    CROSS JOIN LATERAL (
        SELECT * FROM bids AS b WHERE b.item_id = t.item_id AND b.epoch = t.epoch AND b.seq = t.seq OFFSET 0
    ) AS late
)
UPDATE bids AS b
SET status = f.fate
FROM fates AS f
WHERE (b.item_id, b.epoch, b.seq) = (f.item_id, f.epoch, f.seq) AND b.status <> 'voided' AND b.status <> f.fate;

-- name: store_terms
-- From `created` events. A row without terms exists if a later event of the item was archived first.
INSERT INTO items AS i (
    item_id, name, description, image_urls, seller_id, currency, start_price, reserve_price, buy_now_price, increment_kind,
    increment_value, increment_steps, soft_close, auto_opened, approval_required, start_at, original_end_at, created_at,
    epoch, seq, current_bid, highest_bidder_id, bid_count, min_next_bid, status, reserve_met, end_at, updated_at)
SELECT
    item_id, name, description, string_to_array(image_urls, ' '), seller_id, currency, start_price, reserve_price,
    buy_now_price, increment_kind, increment_value, increment_steps, soft_close, auto_opened, approval_required,
    instant_of(start_us), instant_of(end_us),
    instant_of(at_us),
    epoch, seq, current_bid, NULL, 0, min_next_bid, status, reserve_met, instant_of(end_us), instant_of(at_us)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::boolean[], $15::bigint[],
            $16::bigint[], $17::bigint[], $18::integer[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[],
            $23::boolean[], $24::boolean[])
    AS t (item_id, name, description, image_urls, seller_id, currency, start_price, reserve_price, buy_now_price,
          increment_kind, increment_value, increment_steps, soft_close, auto_opened, start_us, end_us, at_us,
          epoch, seq, current_bid, min_next_bid, status, reserve_met, approval_required)
ON CONFLICT (item_id) DO UPDATE
SET name = excluded.name, description = excluded.description, image_urls = excluded.image_urls,
    seller_id = excluded.seller_id, currency = excluded.currency, start_price = excluded.start_price, reserve_price = excluded.reserve_price,
    buy_now_price = excluded.buy_now_price, increment_kind = excluded.increment_kind,
    increment_value = excluded.increment_value, increment_steps = excluded.increment_steps,
    soft_close = excluded.soft_close, auto_opened = excluded.auto_opened,
    approval_required = excluded.approval_required, start_at = excluded.start_at,
    original_end_at = excluded.original_end_at, created_at = excluded.created_at
WHERE i.created_at IS NULL;

-- name: store_states
-- One row per item: its newest event of the batch. The stored state stays unless this one is newer.
INSERT INTO items AS i (item_id, epoch, seq, current_bid, highest_bidder_id, bid_count, min_next_bid, status, reserve_met,
                        end_at, updated_at, currency)
SELECT item_id, epoch, seq, current_bid, highest_bidder_id, bid_count, min_next_bid, status, reserve_met,
       instant_of(end_us), instant_of(at_us), currency
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
            $9::boolean[], $10::bigint[], $11::bigint[], $12::text[])
    AS t (item_id, epoch, seq, current_bid, highest_bidder_id, bid_count, min_next_bid, status, reserve_met, end_us,
          at_us, currency)
ON CONFLICT (item_id) DO UPDATE
SET epoch = excluded.epoch, seq = excluded.seq, current_bid = excluded.current_bid,
    highest_bidder_id = excluded.highest_bidder_id, bid_count = excluded.bid_count,
    min_next_bid = excluded.min_next_bid, status = excluded.status, reserve_met = excluded.reserve_met,
    end_at = excluded.end_at, updated_at = excluded.updated_at
WHERE (i.epoch, i.seq) < (excluded.epoch, excluded.seq);

-- name: insert_dead_letters
INSERT INTO dead_letters (reason, detail, subject, stream_seq, shard, shard_epoch, n, data)
SELECT *
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::integer[], $7::bigint[], $8::bytea[])
ON CONFLICT DO NOTHING
RETURNING reason, detail, subject, stream_seq;

-- name: count_dead_letters
-- A letter is settled once a retry has stored it, or has found that its epoch is over, or that its item is retired.
SELECT count(*) AS letters, count(*) FILTER (WHERE reason = 'clash') AS clashes,
       count(*) FILTER (WHERE reason = 'former_epoch') AS former
FROM dead_letters
WHERE outcome IS NULL OR outcome NOT IN ('stored', 'former_epoch', 'retired');

-- name: list_dead_letters
-- $1: whether to list settled ones too. $2: only this one.
SELECT id, reason, subject, n, at, detail, retried_at, outcome
FROM dead_letters
WHERE ($1::boolean OR outcome IS NULL OR outcome NOT IN ('stored', 'former_epoch', 'retired')) AND ($2::bigint IS NULL OR id = $2)
ORDER BY id;

-- name: lock_dead_letter
SELECT id, reason, subject, stream_seq, shard, shard_epoch, n, data, outcome
FROM dead_letters
WHERE id = $1
FOR UPDATE;

-- name: mark_dead_letter
UPDATE dead_letters SET retried_at = now(), outcome = $2 WHERE id = $1;

-- name: known_shards
-- Of each shard whether the archive knows anything of it, and the epoch that it gets when rebuilt: above every epoch that the
-- shard or one of its items ever had. (An item has the epoch that its shard had when the item was opened or rebuilt.)
SELECT c.shard, greatest(c.shard_epoch, max(r.shard_epoch), 1) + 1 AS next_epoch,
       c.archived_n > 0 OR c.shard_epoch > 0 OR cardinality(c.ahead) > 0 OR count(r.shard) > 0 AS is_known
FROM shard_cursors AS c
LEFT JOIN recoveries AS r USING (shard)
GROUP BY c.shard;

-- name: begin_recovery
-- After lock_cursors of the shard, so that no two runs get the same epoch, and for the reason given at read_fences. $2: an epoch
-- that Redis or the stream knows. A PostgreSQL that was restored from a backup has lost the newest ones, which viewers were shown.
INSERT INTO recoveries (shard, shard_epoch)
SELECT c.shard, greatest(c.shard_epoch, max(r.shard_epoch), $2::integer, 1) + 1
FROM shard_cursors AS c
LEFT JOIN recoveries AS r USING (shard)
WHERE c.shard = $1
GROUP BY c.shard
RETURNING shard_epoch;

-- name: next_run
SELECT nextval('recovery_runs');

-- name: end_recovery
UPDATE recoveries SET finished_at = now(), items = $3, verdicts = $4 WHERE shard = $1 AND shard_epoch = $2;

-- name: has_item
SELECT EXISTS (SELECT FROM items WHERE item_id = $1);

-- name: read_item_ids
-- The items that Redis must have. Not those that are closed and exported and had their last event more than $1 seconds ago: they
-- would leave it at once. With less than 0 seconds nothing ever leaves. Never those of which the log is in an export alone.
SELECT i.item_id FROM items AS i
WHERE NOT EXISTS (SELECT FROM retired_items AS g WHERE g.item_id = i.item_id AND g.state <> 'checking') AND NOT (
    $1::double precision >= 0 AND i.status IN ('sold', 'unsold', 'cancelled') AND i.created_at IS NOT NULL
    AND i.updated_at + $1 * interval '1 second' <= now()
    AND EXISTS (SELECT FROM exports AS x
                WHERE (x.item_id, x.epoch, x.seq) = (i.item_id, i.epoch, i.seq) AND x.state = 'confirmed')
);

-- name: show_read_only
SHOW transaction_read_only;
