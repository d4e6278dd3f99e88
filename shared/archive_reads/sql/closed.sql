-- Reads of closed items, one statement after each "name" line; shared/archive_reads/origin.py runs them.
--
-- A closed item is in a final status, and nothing of it is missing: its chain of hashes has reached its newest event. An item that
-- has left Redis is always such a one.

-- name: read_closed
-- The closed ones of items $1, which are in shards $2. `epoch` is that of the shard: a recovery gives it to all items, and does not
-- touch those that have left Redis. What was made of the events of a retired item is kept beside its name. An item may have very many events: of its extensions only the last one is read, and its pauses
-- and how its end was moved by hand, only where that has moved a hard end.
SELECT i.item_id, i.name, i.description, i.image_urls, i.seller_id, i.currency, i.start_price, i.reserve_price, i.buy_now_price,
       i.increment_kind, i.increment_value, i.increment_steps, i.soft_close, i.approval_required, us_of(i.start_at) AS start_us,
       us_of(i.original_end_at) AS original_end_us, us_of(i.created_at) AS created_us, us_of(i.end_at) AS end_us,
       us_of(i.updated_at) AS updated_us, i.seq, i.current_bid, i.highest_bidder_id, i.bid_count, i.status, i.reserve_met,
       greatest(i.epoch, s.shard_epoch, (SELECT max(r.shard_epoch) FROM recoveries AS r WHERE r.shard = t.shard)) AS epoch,
       coalesce(g.extensions,
                (SELECT (e.body ->> 'extensions')::integer FROM events AS e
                 WHERE e.item_id = i.item_id AND e.type = 'extended' ORDER BY e.epoch DESC, e.seq DESC LIMIT 1), 0) AS extensions,
       CASE WHEN g.item_id IS NOT NULL THEN g.shift_us
       WHEN i.soft_close ~ '"hard_end_us": ?[0-9]' THEN
           coalesce((SELECT sum(clock.at_us - clock.stopped_us) FILTER (WHERE clock.type = 'resumed' AND clock.before = 'paused')
                     FROM (SELECT e.type, us_of(e.at) AS at_us, lag(e.type) OVER events_of AS before,
                                  lag(us_of(e.at)) OVER events_of AS stopped_us
                           FROM events AS e WHERE e.item_id = i.item_id AND e.type IN ('paused', 'resumed')
                           WINDOW events_of AS (ORDER BY e.epoch, e.seq)) AS clock), 0)::bigint
       ELSE 0 END AS shift_us,
       CASE WHEN g.item_id IS NOT NULL THEN g.moved_us
       WHEN i.soft_close ~ '"hard_end_us": ?[0-9]' THEN
           coalesce((SELECT sum((e.body ->> 'end_us')::bigint - (e.body ->> 'previous_end_us')::bigint)
                     FROM events AS e WHERE e.item_id = i.item_id AND e.type = 'end_moved'), 0)::bigint
       ELSE 0 END AS moved_us
FROM unnest($1::text[], $2::text[]) AS t (item_id, shard)
JOIN items AS i USING (item_id)
JOIN chains AS c ON (c.item_id, c.epoch, c.seq) = (i.item_id, i.epoch, i.seq)
LEFT JOIN shard_cursors AS s ON s.shard = t.shard
LEFT JOIN retired_items AS g ON g.item_id = i.item_id AND g.state <> 'checking'
WHERE i.status IN ('sold', 'unsold', 'cancelled') AND i.created_at IS NOT NULL;
