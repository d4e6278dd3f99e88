-- Statements of the chain, the audit and the exports; archival_worker/store/queries.py reads them.

-- name: relax
-- First in a transaction of the chainer. Its rows can all be computed again, so its COMMIT need not wait for the disk, and
-- does not compete for it with the write path. It notes bidders itself: no trigger has to (migration 0012).
SELECT
    set_config('bidding.notes_bidders', 'on', true),
    set_config('idle_in_transaction_session_timeout', '30s', true),
    set_config('synchronous_commit', 'off', true);

-- name: find_behind
-- One window of items after $1: which of them are past their chain? `last` is where the next window begins.
SELECT w.item_id, (c.item_id IS NULL OR (w.epoch, w.seq) > (c.epoch, c.seq)) AS behind
FROM (SELECT item_id, epoch, seq FROM items WHERE item_id > $1 ORDER BY item_id LIMIT $2) AS w
LEFT JOIN chains AS c ON c.item_id = w.item_id
ORDER BY w.item_id;

-- name: begin_chains
INSERT INTO chains (item_id)
SELECT item_id FROM unnest($1::text[]) AS t (item_id)
WHERE NOT EXISTS (SELECT FROM chains AS c WHERE c.item_id = t.item_id)
ORDER BY item_id
ON CONFLICT DO NOTHING;

-- name: lock_chains
-- Leaves out those that another archiver works on.
SELECT item_id, epoch, seq, hash FROM chains WHERE item_id = ANY ($1::text[]) ORDER BY item_id FOR UPDATE SKIP LOCKED;

-- name: read_unchained
-- Per item, in order, at most $4 rows after its chain, and at most $4 in all.
SELECT c.item_id, r.*
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS c (item_id, epoch, seq)
CROSS JOIN LATERAL (
    (SELECT b.epoch, b.seq, 'bid' AS type, NULL::text AS body, us_of(b.placed_at) AS at_us,
            b.bid_id, b.user_id, b.amount, b.previous_bid, b.kind, b.leader_id
     FROM bids AS b WHERE b.item_id = c.item_id AND (b.epoch, b.seq) > (c.epoch, c.seq)
     ORDER BY b.epoch, b.seq LIMIT $4)
    UNION ALL
    (SELECT e.epoch, e.seq, e.type, e.body::text, us_of(e.at), NULL, NULL, NULL, NULL, NULL, NULL
     FROM events AS e WHERE e.item_id = c.item_id AND (e.epoch, e.seq) > (c.epoch, c.seq)
     ORDER BY e.epoch, e.seq LIMIT $4)
    ORDER BY epoch, seq LIMIT $4
) AS r
LIMIT $4;

-- name: insert_hashes
-- A hash that is already stored past the end of its chain stays as it is: the audit tells whether it fits.
INSERT INTO event_hashes (item_id, epoch, seq, hash)
SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bytea[])
ON CONFLICT DO NOTHING;

-- name: note_bidders
-- Notes who has bid on what. Only a bidder's first bid on an item makes a row.
INSERT INTO bidders (user_id, item_id, first_bid_at)
SELECT user_id, item_id, instant_of(at_us) FROM unnest($1::text[], $2::text[], $3::bigint[]) AS t (user_id, item_id, at_us)
ON CONFLICT DO NOTHING;

-- name: move_chains
UPDATE chains AS c
SET epoch = t.epoch, seq = t.seq, hash = t.hash
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bytea[]) AS t (item_id, epoch, seq, hash)
WHERE c.item_id = t.item_id;

-- name: add_exports
-- For those of the items that are final and whose chain is complete. Returns how many exports are newly due.
WITH complete AS (
    SELECT c.item_id, c.epoch, c.seq, c.hash
    FROM chains AS c
    JOIN items AS i ON i.item_id = c.item_id AND i.epoch = c.epoch AND i.seq = c.seq
    WHERE c.item_id = ANY ($1::text[]) AND i.status IN ('sold', 'unsold', 'cancelled')
), added AS (
    INSERT INTO exports (item_id, epoch, seq, head) SELECT * FROM complete
    ON CONFLICT DO NOTHING
    RETURNING item_id
), superseded AS (
    UPDATE exports AS x
    SET state = 'superseded'
    FROM complete AS c
    WHERE x.item_id = c.item_id AND (x.epoch, x.seq) < (c.epoch, c.seq) AND x.state IN ('due', 'failing')
)
SELECT count(*) FROM added;

-- name: claim_export
-- The next one that is due. No other archiver takes it before next_try_at; if this one dies, it is tried again then.
UPDATE exports AS x
SET tries = x.tries + 1, next_try_at = now() + $1::double precision * interval '1 second'
FROM (
    SELECT item_id, epoch, seq FROM exports
    WHERE state IN ('due', 'failing') AND next_try_at <= now()
    ORDER BY next_try_at LIMIT 1
    FOR UPDATE SKIP LOCKED
) AS t
WHERE (x.item_id, x.epoch, x.seq) = (t.item_id, t.epoch, t.seq)
RETURNING x.item_id, x.epoch, x.seq, x.head, x.tries;

-- name: confirm_export
UPDATE exports
SET state = 'confirmed', confirmed_at = now(), object_key = $4, bytes = $5, sha256 = $6, last_error = NULL
WHERE item_id = $1 AND epoch = $2 AND seq = $3 AND state IN ('due', 'failing');

-- name: fail_export
UPDATE exports
SET state = 'failing', last_error = $4, next_try_at = now() + $5::double precision * interval '1 second'
WHERE item_id = $1 AND epoch = $2 AND seq = $3 AND state IN ('due', 'failing');

-- name: count_exports
-- $1: from how many tries on an export counts as stuck. One that is still `due` after so many tries has ended every archiver
-- that tried it.
SELECT count(*) AS open,
       count(*) FILTER (WHERE tries >= $1) AS stuck,
       max(item_id || ': ' || coalesce(last_error, 'the archiver ended in the middle of it')) FILTER (WHERE tries >= $1)
           AS example
FROM exports
WHERE state IN ('due', 'failing');

-- name: read_item
SELECT epoch, seq, status, current_bid, highest_bidder_id, bid_count, min_next_bid, reserve_met, us_of(end_at) AS end_us,
       name, description, image_urls, seller_id, currency, start_price, reserve_price, buy_now_price, increment_kind, increment_value,
       increment_steps, soft_close, auto_opened, us_of(start_at) AS start_us, us_of(original_end_at) AS original_end_us
FROM items
WHERE item_id = $1;

-- name: read_chain
SELECT epoch, seq, hash FROM chains WHERE item_id = $1;

-- name: read_rows
-- An item's events after ($2, $3), in order, at most $4, each with its stored hash.
SELECT $1::text AS item_id, r.*, h.hash
FROM (
    (SELECT b.epoch, b.seq, 'bid' AS type, NULL::text AS body, us_of(b.placed_at) AS at_us,
            b.bid_id, b.user_id, b.amount, b.previous_bid, b.kind, b.leader_id
     FROM bids AS b WHERE b.item_id = $1 AND (b.epoch, b.seq) > ($2::integer, $3::bigint)
     ORDER BY b.epoch, b.seq LIMIT $4)
    UNION ALL
    (SELECT e.epoch, e.seq, e.type, e.body::text, us_of(e.at), NULL, NULL, NULL, NULL, NULL, NULL
     FROM events AS e WHERE e.item_id = $1 AND (e.epoch, e.seq) > ($2::integer, $3::bigint)
     ORDER BY e.epoch, e.seq LIMIT $4)
    ORDER BY epoch, seq LIMIT $4
) AS r
LEFT JOIN event_hashes AS h ON h.item_id = $1 AND h.epoch = r.epoch AND h.seq = r.seq
ORDER BY r.epoch, r.seq;

-- name: find_orphan_hash
-- The first hash that has no row (any more).
SELECT h.epoch, h.seq
FROM event_hashes AS h
WHERE h.item_id = $1
    AND NOT EXISTS (SELECT FROM bids AS b WHERE b.item_id = $1 AND b.epoch = h.epoch AND b.seq = h.seq)
    AND NOT EXISTS (SELECT FROM events AS e WHERE e.item_id = $1 AND e.epoch = h.epoch AND e.seq = h.seq)
ORDER BY h.epoch, h.seq
LIMIT 1;

-- name: find_misjudged_bid
-- The first bid whose status is not what the item's voids make it (apply_voids in queries.sql), and the right status.
WITH voids AS MATERIALIZED (
    SELECT item_id, epoch, seq, body ->> 'bid_id' AS struck_id, (body ->> 'voided_seq')::bigint AS voided_seq,
           body ->> 'bidder_id' AS bidder_id, (body ->> 'automatic_until')::bigint AS automatic_until,
           (body ->> 'current_bid')::bigint AS price
    FROM events
    WHERE type = 'voided' AND item_id = $1
)
SELECT b.epoch, b.seq, b.status, coalesce(f.fate, 'valid') AS expected
FROM bids AS b
CROSS JOIN LATERAL (
    SELECT max(void_fate(v.seq, v.struck_id, v.voided_seq, v.bidder_id, v.automatic_until, v.price,
                         b.seq, b.bid_id, b.user_id, b.kind, b.amount)) AS fate
    FROM voids AS v WHERE b.epoch <= v.epoch
) AS f
WHERE b.item_id = $1 AND b.status <> coalesce(f.fate, 'valid')
ORDER BY b.epoch, b.seq
LIMIT 1;

-- name: read_confirmed
SELECT epoch, seq, head FROM exports WHERE item_id = $1 AND state = 'confirmed' ORDER BY epoch, seq;
