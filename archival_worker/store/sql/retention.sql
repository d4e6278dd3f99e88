-- Statements of the retention; archival_worker/store/queries.py reads them.

-- name: lock_run
-- One run at a time, until its connection ends: caches rely on items retiring one after the other (read_retired_after in
-- shared/archive_reads/sql/retired.sql).
SELECT pg_try_advisory_lock(7301985221);

-- name: find_old
-- One window of items after $1. `is_old`: closed, had its last event more than $3 seconds ago, and is not retired. Of those: whether
-- they are exported as they are, and what the export is. The last row is where the next window begins.
SELECT w.item_id, w.epoch, w.seq, w.is_old, x.object_key, x.bytes, x.sha256, x.head,
       x.state IS NOT NULL AND x.state = 'confirmed' AND c.hash = x.head AS is_exported
FROM (
    SELECT i.item_id, i.epoch, i.seq,
           i.status IN ('sold', 'unsold', 'cancelled') AND i.created_at IS NOT NULL
               AND i.updated_at <= now() - $3::double precision * interval '1 second'
               AND NOT EXISTS (
                   SELECT FROM retired_items AS g WHERE g.item_id = i.item_id AND g.state <> 'checking' OFFSET 0
               ) AS is_old
    FROM items AS i WHERE i.item_id > $1 ORDER BY i.item_id LIMIT $2
) AS w
LEFT JOIN exports AS x ON w.is_old AND (x.item_id, x.epoch, x.seq) = (w.item_id, w.epoch, w.seq)
LEFT JOIN chains AS c ON w.is_old AND (c.item_id, c.epoch, c.seq) = (w.item_id, w.epoch, w.seq)
ORDER BY w.item_id;

-- name: find_letters
-- Which of these subjects have dead letters that are not settled: they are evidence, and may have to be compared with the log.
SELECT DISTINCT subject FROM dead_letters
WHERE subject = ANY ($1::text[]) AND (outcome IS NULL OR outcome NOT IN ('stored', 'former_epoch', 'retired'));

-- name: find_open
-- Items after $1 whose rows a former run did not remove to the end.
SELECT item_id, epoch, seq, place, object_key, bytes, sha256, head FROM retired_items
WHERE state = 'retiring' AND item_id > $1
ORDER BY item_id
LIMIT $2;

-- name: check
-- Notes that the item is being looked at. What a former run noted is written over.
INSERT INTO retired_items AS g (item_id, epoch, seq, head, place, object_key, bytes, sha256, events, bids, actor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (item_id) DO UPDATE
SET epoch = excluded.epoch, seq = excluded.seq, head = excluded.head, place = excluded.place, object_key = excluded.object_key,
    bytes = excluded.bytes, sha256 = excluded.sha256, events = excluded.events, bids = excluded.bids, actor = excluded.actor,
    checked_at = clock_timestamp()
WHERE g.state = 'checking'
RETURNING item_id;

-- name: let_stay
-- The item stays as it is.
DELETE FROM retired_items WHERE item_id = $1 AND state = 'checking';

-- name: read_spans
-- Of each epoch the first and the last number that an event of the item has, and how many have one.
SELECT epoch, min(seq) AS first, max(seq) AS last, count(*) AS events
FROM (SELECT epoch, seq FROM bids WHERE item_id = $1 UNION ALL SELECT epoch, seq FROM events WHERE item_id = $1) AS log
GROUP BY epoch
ORDER BY epoch;

-- name: begin_retiring
-- In a transaction that has locked the item's shard, so that archivers either committed before it or see it. Not if the item has
-- changed since it was looked at, and not long after that: then somebody may have brought it back (read_check in
-- shared/archive_reads/sql/retired.sql).
UPDATE retired_items AS g
SET state = 'retiring', retired_at = clock_timestamp(), n = nextval('retirements'), spans = $2::bigint[], extensions = $3, shift_us = $4,
    moved_us = $5
WHERE g.item_id = $1 AND g.state = 'checking' AND g.checked_at > clock_timestamp() - interval '5 minutes'
    AND EXISTS (
        SELECT FROM items AS i
        JOIN exports AS x ON (x.item_id, x.epoch, x.seq) = (i.item_id, i.epoch, i.seq)
        JOIN chains AS c ON (c.item_id, c.epoch, c.seq) = (i.item_id, i.epoch, i.seq)
        WHERE (i.item_id, i.epoch, i.seq) = (g.item_id, g.epoch, g.seq) AND x.state = 'confirmed' AND x.head = g.head
            AND c.hash = g.head
    )
RETURNING n;

-- name: count_retired
-- Counts the item for its shard, in the same transaction as begin_retiring.
UPDATE shard_cursors SET retired = retired + 1 WHERE shard = $1;

-- name: remove_log
-- Removes at most $2 rows of the item. If it removes fewer, no row is left.
SELECT remove_log($1, $2::integer);

-- name: read_retired_item
-- For the audit.
SELECT item_id, state, epoch, seq, head, place, object_key, bytes, sha256, events, bids, retired_at
FROM retired_items
WHERE item_id = $1 AND state <> 'checking';
