-- name: read_item_rulings
-- What holds on bidders of the closed item $1: of $2 alone, or of $4 of them after the first $3, by name.
SELECT user_id, approved, blocked, max_amount
FROM (
    SELECT DISTINCT ON (user_id) user_id, approved, blocked, max_amount
    FROM rulings
    WHERE item_id = $1 AND ($2::text IS NULL OR user_id = $2)
    ORDER BY user_id, shard_epoch DESC, n DESC, at DESC
) AS newest
WHERE approved OR blocked OR max_amount IS NOT NULL
ORDER BY user_id
OFFSET $3::bigint LIMIT $4;
