-- Statements about the caller's own lists. The functions are in migration 0012.

-- name: read_watched
-- As is_long_over has it, which would be called for each row.
SELECT w.item_id, (extract(epoch FROM w.since) * 1000000)::bigint AS since_us
FROM watched AS w
LEFT JOIN LATERAL (SELECT status, updated_at FROM items AS i WHERE i.item_id = w.item_id OFFSET 0) AS i ON true
WHERE w.user_id = $1 AND NOT coalesce(
    i.status IN ('sold', 'unsold', 'cancelled') AND i.updated_at < now() - $2::integer * interval '1 day',
    w.since < now() - $2::integer * interval '1 day'
)
ORDER BY w.since DESC, w.item_id
LIMIT $3;

-- name: watch
SELECT watch_item($1, $2, $3::smallint, $4, $5, $6::integer * interval '1 day') AS outcome;

-- name: unwatch
SELECT unwatch_item($1, $2, $3::smallint);

-- name: read_bid_on
SELECT item_id, first_bid_at::text AS place, (extract(epoch FROM first_bid_at) * 1000000)::bigint AS at_us
FROM bidders
WHERE user_id = $1
ORDER BY first_bid_at DESC, item_id DESC
LIMIT $2;

-- name: read_bid_on_after
SELECT item_id, first_bid_at::text AS place, (extract(epoch FROM first_bid_at) * 1000000)::bigint AS at_us
FROM bidders
WHERE user_id = $1 AND (first_bid_at, item_id) < ($3::text::timestamptz, $4)
ORDER BY first_bid_at DESC, item_id DESC
LIMIT $2;
