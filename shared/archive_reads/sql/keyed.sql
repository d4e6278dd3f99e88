-- What is kept under one key of a closed item's bids; shared/archive_reads/keyed_verdicts.py runs these. They find what
-- read_answered_bids and read_sealed_answers (rebuild.sql) find, for one key: for a while after the item was over.

-- name: read_keyed_bid
-- The plain bid with the id $2 of item $1, and the automatic bid that answered it; until $3 microseconds after the item was over.
SELECT b.item_id, b.epoch, b.seq, b.bid_id, b.user_id, b.amount, b.kind, b.leader_id, us_of(b.placed_at) AS ts_us
FROM bids AS b
JOIN items AS i USING (item_id)
WHERE b.item_id = $1 AND b.bid_id IN ($2, $2 || '/proxy')
    AND {{over_at}} + $3::bigint * interval '1 microsecond' > now()
    AND NOT EXISTS (SELECT FROM sealed AS s WHERE s.item_id = b.item_id AND s.epoch = b.epoch AND s.bid_id = $2)
ORDER BY b.epoch, b.seq
LIMIT 2;

-- name: read_keyed_facts
-- The bids of item $1 with sealed facts under the key $2: the one with that id, the first one, and that of user $3 (null: of nobody
-- in particular); until $4 microseconds after the item was over.
(SELECT s.item_id, s.user_id, s.bid_id, s.amount, s.max_amount, s.key, s.verdict
 FROM sealed AS s
 JOIN items AS i USING (item_id)
 WHERE s.item_id = $1 AND s.key = $2
    AND {{over_at}} + $4::bigint * interval '1 microsecond' > now()
 ORDER BY (s.bid_id = $2) DESC, s.epoch, s.n, s.at
 LIMIT 2)
UNION ALL
(SELECT s.item_id, s.user_id, s.bid_id, s.amount, s.max_amount, s.key, s.verdict
 FROM sealed AS s
 JOIN items AS i USING (item_id)
 WHERE s.item_id = $1 AND s.key = $2 AND s.user_id = $3
    AND {{over_at}} + $4::bigint * interval '1 microsecond' > now()
 ORDER BY s.epoch, s.n, s.at
 LIMIT 2);
