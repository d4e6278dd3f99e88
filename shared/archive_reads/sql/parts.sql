-- Parts of statements: {{name}} in a statement of this folder stands for the part after the "name" line.

-- name: over_at
-- Since when the item of row i (of `items`), which is over, is over: after its last event but voids, which may follow, and after its
-- last bid but the automatic ones that a void makes anew.
coalesce(greatest(
    (SELECT e.at FROM events AS e
     WHERE e.item_id = i.item_id AND e.type <> 'voided' ORDER BY e.epoch DESC, e.seq DESC LIMIT 1),
    (SELECT o.placed_at FROM bids AS o
     WHERE o.item_id = i.item_id AND o.bid_id NOT LIKE '%/anew' ORDER BY o.epoch DESC, o.seq DESC LIMIT 1)
), i.updated_at)
