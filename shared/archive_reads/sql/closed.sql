-- Reads of closed items, one statement after each "name" line; shared/archive_reads/closed_items.py runs them.
--
-- A closed item is in a final status, and nothing of it is missing: its chain of hashes has reached its newest event. An item that
-- has left Redis is always such a one.

-- name: read_closed
-- The closed ones of items $1, which are in shards $2. `epoch` is that of the shard: a recovery gives it to all items, and does not
-- touch those that have left Redis. `turns`: what moved the end, or stopped the clock, oldest first.
SELECT i.item_id, i.name, i.description, i.seller_id, i.currency, i.start_price, i.reserve_price, i.buy_now_price,
       i.increment_kind, i.increment_value, i.increment_steps, i.soft_close, us_of(i.start_at) AS start_us,
       us_of(i.original_end_at) AS original_end_us, us_of(i.created_at) AS created_us, us_of(i.end_at) AS end_us,
       us_of(i.updated_at) AS updated_us, i.seq, i.current_bid, i.highest_bidder_id, i.bid_count, i.status, i.reserve_met,
       greatest(i.epoch, s.shard_epoch, (SELECT max(r.shard_epoch) FROM recoveries AS r WHERE r.shard = t.shard)) AS epoch,
       (SELECT json_agg(json_build_object('type', e.type, 'ts_us', us_of(e.at),
                                          'extensions', (e.body ->> 'extensions')::integer) ORDER BY e.epoch, e.seq)
        FROM events AS e
        WHERE e.item_id = i.item_id AND e.type IN ('paused', 'resumed', 'extended')) AS turns
FROM unnest($1::text[], $2::text[]) AS t (item_id, shard)
JOIN items AS i USING (item_id)
JOIN chains AS c ON (c.item_id, c.epoch, c.seq) = (i.item_id, i.epoch, i.seq)
LEFT JOIN shard_cursors AS s ON s.shard = t.shard
WHERE i.status IN ('sold', 'unsold', 'cancelled') AND i.created_at IS NOT NULL;
