-- Reads of retired items; shared/archive_reads/retired.py runs them.

-- name: read_retired
-- Nothing while it is only looked whether the item may retire: its log is there.
SELECT object_key AS export, encode(head, 'hex') AS head, bids, events, us_of(retired_at) AS retired_at
FROM retired_items
WHERE item_id = $1 AND state <> 'checking';

-- name: read_check
-- A check that was given up does not count any more, long after it may be used (begin_retiring in
-- archival_worker/store/sql/retention.sql).
SELECT item_id FROM retired_items
WHERE item_id = $1 AND state = 'checking' AND checked_at > clock_timestamp() - interval '15 minutes';

-- name: read_newest
-- The number of the item that has retired last.
SELECT coalesce(max(n), 0) AS n FROM retired_items;

-- name: read_retired_after
-- At most $2 items that have retired after the one with the number $1, in order. One item retires at a time, so none of them
-- is seen after one with a higher number.
SELECT n, item_id FROM retired_items WHERE n > $1 ORDER BY n LIMIT $2;
