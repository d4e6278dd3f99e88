-- Who may bid. What sellers and operators rule on bidders is in no event, since nobody but them is told: it comes beside the
-- events of an outbox entry (shared/sealed.py), for the audit, and for `recover`.
--
-- One row per ruling, with all that holds on that bidder after it: the newest of a bidder and item (or seller, or of all items, where
-- both are null) is what holds. Those of an item or shard follow each other as their outbox entries do. `user_id` is '*' where
-- everybody needs approval. Append-only.
CREATE TABLE rulings (
    shard       text NOT NULL,
    shard_epoch integer NOT NULL,
    n           bigint NOT NULL,
    at          integer NOT NULL,
    item_id     text,
    seller_id   text,
    user_id     text NOT NULL,
    -- What was done: approve, unapprove, block, unblock, limit, unlimit.
    ruling      text NOT NULL,
    approved    boolean NOT NULL,
    blocked     boolean NOT NULL,
    max_amount  bigint,
    -- Of a spending limit, over all items in this currency; else null.
    currency    text,
    reason      text NOT NULL,
    actor       text NOT NULL,
    decided_at  timestamptz NOT NULL,
    PRIMARY KEY (shard, shard_epoch, n, at)
);

CREATE INDEX rulings_on_items ON rulings (item_id, user_id, shard_epoch DESC, n DESC, at DESC) WHERE item_id IS NOT NULL;
CREATE INDEX rulings_on_all ON rulings (user_id, seller_id, currency, shard_epoch DESC, n DESC, at DESC) WHERE item_id IS NULL;

-- A term of the item.
ALTER TABLE items ADD COLUMN approval_required boolean NOT NULL DEFAULT false;
