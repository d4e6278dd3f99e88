-- Statements of the eviction; archival_worker/store/queries.py reads them.

-- name: read_exported
-- Those of items $1 that are closed and exported as they are, each with the seq of its last event. An export is due only once the
-- item's chain is complete, so nothing of these items is missing in the archive.
-- $2: those of them of which a bid was struck, or that came back for a void. They leave $3 seconds after their export at the earliest.
-- A process that keeps the former state hears of the void only once the archive has it, and would serve the former state until then.
SELECT i.item_id, i.seq
FROM items AS i
JOIN exports AS x ON (x.item_id, x.epoch, x.seq) = (i.item_id, i.epoch, i.seq)
WHERE i.item_id = ANY ($1::text[]) AND x.state = 'confirmed' AND i.created_at IS NOT NULL
    AND i.status IN ('sold', 'unsold', 'cancelled')
    AND (i.item_id <> ALL ($2::text[]) OR x.confirmed_at <= now() - make_interval(secs => $3::integer));

-- name: has_exports
-- Whether anything was ever exported.
SELECT EXISTS (SELECT FROM exports WHERE state = 'confirmed');
