-- What viewers and bidders of a closed item are told beside its state; shared/archive_reads/feed_reads.py runs these, and
-- read_log (rebuild.sql). No statement reads a maximum.

-- name: read_standing_bidders
-- Those of users $2 of whom an accepted bid stands on item $1, raised maxima among them.
SELECT user_id FROM bids
WHERE item_id = $1 AND user_id = ANY ($2::text[]) AND status <> 'voided' AND kind <> 'proxy'
UNION
SELECT user_id FROM sealed AS s
WHERE item_id = $1 AND user_id = ANY ($2::text[]) AND verdict LIKE 'M|%'
    AND NOT EXISTS (SELECT FROM events AS e WHERE e.item_id = $1 AND e.type = 'voided' AND e.body ->> 'bid_id' = s.bid_id);

-- name: read_voids
-- The newest $2 voids of item $1, oldest first.
SELECT body FROM (
    SELECT epoch, seq, body::text AS body FROM events
    WHERE item_id = $1 AND type = 'voided' ORDER BY epoch DESC, seq DESC LIMIT $2
) AS newest
ORDER BY epoch, seq;
