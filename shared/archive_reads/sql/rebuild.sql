-- What an item is made of again, as Redis must have it; one statement after each "name" line, for several items at once.
-- shared/archive_reads/rebuild_reads.py runs them.

-- name: read_items
-- Terms and newest state. `runner_up` is the highest visible bid of anybody but the leader, which is right if no bid of the item
-- had a maximum. `closed_us`: since when an item that is over is over; voids may have followed. Instants in microseconds.
SELECT i.*, (SELECT count(*) FROM events AS e WHERE e.item_id = i.item_id AND e.type = 'voided') AS voids,
       us_of(i.start_at) AS start_us, us_of(i.original_end_at) AS original_end_us, us_of(i.created_at) AS created_us,
       us_of(i.end_at) AS end_us, us_of(i.updated_at) AS updated_us,
       us_of({{over_at}}) AS closed_us,
       coalesce((SELECT max(b.amount) FROM bids AS b
                 WHERE b.item_id = i.item_id AND b.status = 'valid' AND b.user_id <> i.highest_bidder_id), 0) AS runner_up
FROM items AS i
WHERE i.item_id = ANY ($1::text[])
ORDER BY i.item_id;

-- name: read_turns
-- What pauses and extensions have done to each item: how often the soft close extended it, by how many microseconds pauses have
-- moved its hard end, and since when it is paused, null where it is not; by how many its end was moved by those who may, and the
-- newest $2 of their requests, newest first.
SELECT wanted.item_id, clock.shift_us, clock.paused_us, moves.moved_us, moves.requests,
       coalesce((SELECT (e.body ->> 'extensions')::integer FROM events AS e
                 WHERE e.item_id = wanted.item_id AND e.type = 'extended'
                 ORDER BY e.epoch DESC, e.seq DESC LIMIT 1), 0) AS extensions
FROM unnest($1::text[]) AS wanted (item_id),
LATERAL (
    SELECT coalesce(sum(at_us - stopped_us) FILTER (WHERE type = 'resumed' AND before = 'paused'), 0)::bigint AS shift_us,
           max(at_us) FILTER (WHERE type = 'paused' AND is_last) AS paused_us
    FROM (SELECT e.type, us_of(e.at) AS at_us, lag(e.type) OVER events_of AS before, lag(us_of(e.at)) OVER events_of AS stopped_us,
                 lead(e.type) OVER events_of IS NULL AS is_last
          FROM events AS e WHERE e.item_id = wanted.item_id AND e.type IN ('paused', 'resumed')
          WINDOW events_of AS (ORDER BY e.epoch, e.seq)) AS turns
) AS clock,
LATERAL (
    SELECT coalesce(sum(by_us), 0)::bigint AS moved_us,
           coalesce((array_agg(request ORDER BY epoch DESC, seq DESC) FILTER (WHERE request <> ''))[1:$2], '{}') AS requests
    FROM (SELECT e.epoch, e.seq, e.body ->> 'request' AS request,
                 (e.body ->> 'end_us')::bigint - (e.body ->> 'previous_end_us')::bigint AS by_us
          FROM events AS e WHERE e.item_id = wanted.item_id AND e.type = 'end_moved') AS moved
) AS moves;

-- name: read_log
-- Of each item the newest $2 events, bids and others, newest first.
SELECT wanted.item_id, log.*
FROM unnest($1::text[]) AS wanted (item_id),
LATERAL (
    (SELECT epoch, seq, NULL::text AS body, bid_id, user_id, amount, previous_bid, kind, leader_id, us_of(placed_at) AS ts_us
     FROM bids AS b WHERE b.item_id = wanted.item_id ORDER BY epoch DESC, seq DESC LIMIT $2)
    UNION ALL
    (SELECT epoch, seq, body::text, NULL, NULL, NULL, NULL, NULL, NULL, us_of(at)
     FROM events AS e WHERE e.item_id = wanted.item_id ORDER BY epoch DESC, seq DESC LIMIT $2)
    ORDER BY epoch DESC, seq DESC LIMIT $2
) AS log
ORDER BY wanted.item_id, log.epoch DESC, log.seq DESC;

-- name: read_standing
-- Of each item its newest sealed fact: all bids after it are plain ones.
SELECT DISTINCT ON (item_id) item_id, epoch, seq, leader_id, leader_max, runner_up
FROM sealed
WHERE item_id = ANY ($1::text[])
ORDER BY item_id, epoch DESC, n DESC, at DESC;

-- name: read_bids_after
-- The bids of items $1 after the places ($2, $3), in order.
SELECT b.item_id, b.user_id, b.amount, b.kind, b.leader_id
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS t (item_id, epoch, seq)
JOIN bids AS b ON b.item_id = t.item_id AND (b.epoch, b.seq) > (t.epoch, t.seq)
ORDER BY b.item_id, b.epoch, b.seq;

-- name: read_maxima
-- Of every bidder the newest maximum that was not struck. A bid at the buy-now price leaves no maximum (the ninth field of a
-- verdict is the kind).
SELECT DISTINCT ON (item_id, user_id) item_id, user_id, max_amount
FROM sealed AS s
WHERE item_id = ANY ($1::text[]) AND max_amount IS NOT NULL AND split_part(verdict, '|', 9) IS DISTINCT FROM 'buy_now'
    AND NOT EXISTS (SELECT FROM events AS e
                    WHERE e.item_id = s.item_id AND e.type = 'voided' AND e.body ->> 'bid_id' = s.bid_id)
ORDER BY item_id, user_id, epoch DESC, n DESC, at DESC;

-- name: read_accepted
-- Of each item the newest $2 entries of its log of accepted bids, oldest first. A raise has no event: its sealed fact repeats the
-- number of the event before it. `position`: how many bids were accepted up to there; automatic bids after voids are in the log
-- but do not count.
WITH accepted AS (
    SELECT b.item_id, b.seq, 0 AS is_raise, b.epoch, 0::bigint AS n, 0 AS at, b.bid_id, b.user_id, b.kind, b.amount AS shown,
           b.status, s.amount, s.max_amount, a.amount AS answer, a.user_id AS answered_by, a.status AS answer_status
    FROM bids AS b
    LEFT JOIN sealed AS s ON s.item_id = b.item_id AND s.epoch = b.epoch AND s.bid_id = b.bid_id
    LEFT JOIN bids AS a ON a.item_id = b.item_id AND a.epoch = b.epoch AND a.seq = b.seq + 1
                       AND a.bid_id = b.bid_id || '/proxy'
    WHERE b.item_id = ANY ($1::text[]) AND (b.kind <> 'proxy' OR b.bid_id LIKE '%/anew')
    UNION ALL
    SELECT r.item_id, r.seq, 1, r.epoch, r.n, r.at, r.bid_id, r.user_id, NULL, NULL, NULL, r.amount, r.max_amount, NULL, NULL,
           NULL
    FROM sealed AS r
    WHERE r.item_id = ANY ($1::text[]) AND r.verdict LIKE 'M|%'
), numbered AS (
    SELECT accepted.*, row_number() OVER (PARTITION BY item_id
                                          ORDER BY seq DESC, is_raise DESC, epoch DESC, n DESC, at DESC) AS newest,
           count(*) FILTER (WHERE kind IS DISTINCT FROM 'proxy')
               OVER (PARTITION BY item_id ORDER BY seq, is_raise, epoch, n, at) AS position
    FROM accepted
)
SELECT o.*, EXISTS (SELECT FROM events AS e
                    WHERE e.item_id = o.item_id AND e.type = 'voided' AND e.body ->> 'bid_id' = o.bid_id) AS is_struck
FROM numbered AS o
WHERE newest <= $2
ORDER BY item_id, newest DESC;

-- name: read_bidders
-- How many accepted bids of each bidder stand, raises included; automatic bids do not count.
SELECT item_id, user_id, count(*) AS bids
FROM (
    SELECT item_id, user_id FROM bids WHERE item_id = ANY ($1::text[]) AND status <> 'voided' AND kind <> 'proxy'
    UNION ALL
    SELECT item_id, user_id FROM sealed AS s
    WHERE item_id = ANY ($1::text[]) AND verdict LIKE 'M|%'
        AND NOT EXISTS (SELECT FROM events AS e
                        WHERE e.item_id = s.item_id AND e.type = 'voided' AND e.body ->> 'bid_id' = s.bid_id)
) AS standing
GROUP BY item_id, user_id
ORDER BY item_id;

-- name: read_answered_bids
-- The bids whose verdict must be kept: as long as their item can take bids, and once it is over, until $2 microseconds after it
-- was: after that there were voids at most. The next statement reads those with sealed facts.
SELECT b.item_id, b.epoch, b.seq, b.bid_id, b.user_id, b.amount, b.kind, b.leader_id, us_of(b.placed_at) AS ts_us
FROM bids AS b
JOIN items AS i USING (item_id)
WHERE b.item_id = ANY ($1::text[])
    AND (i.status NOT IN ('sold', 'unsold', 'cancelled') OR {{over_at}} + $2::bigint * interval '1 microsecond' > now())
    AND NOT EXISTS (SELECT FROM sealed AS s WHERE s.item_id = b.item_id AND s.epoch = b.epoch AND s.bid_id = b.bid_id)
ORDER BY b.item_id, b.epoch, b.seq;

-- name: read_sealed_answers
-- The same for bids with sealed facts that came under a key, raises included.
SELECT s.item_id, s.user_id, s.bid_id, s.amount, s.max_amount, s.key, s.verdict
FROM sealed AS s
JOIN items AS i USING (item_id)
WHERE s.item_id = ANY ($1::text[]) AND s.key IS NOT NULL
    AND (i.status NOT IN ('sold', 'unsold', 'cancelled') OR {{over_at}} + $2::bigint * interval '1 microsecond' > now())
ORDER BY s.item_id, s.epoch, s.n, s.at;

-- name: read_rulings
-- What holds on each bidder on whom something was ruled on these items: the newest ruling.
SELECT DISTINCT ON (item_id, user_id) item_id, user_id, approved, blocked, max_amount
FROM rulings
WHERE item_id = ANY ($1::text[])
ORDER BY item_id, user_id, shard_epoch DESC, n DESC, at DESC;
