-- What somebody who is signed in finds again on every device: the items that they watch, those on which they have bid, and those
-- that they sell.

-- Who has bid on what, by bidder. Derived from `bids`, which has no index by bidder: each accepted bid would pay for it, and here a
-- bidder's second bid on an item writes nothing. Written behind the write path, with the chain of hashes.
CREATE TABLE bidders (
    user_id      text NOT NULL,
    item_id      text NOT NULL,
    first_bid_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, item_id)
);

CREATE INDEX bidders_by_first_bid ON bidders (user_id, first_bid_at DESC, item_id DESC);

-- Archival workers of the version before do not know the table, and may run beside this and after it: what they chain is noted for
-- them. Those that note it themselves say so (relax in archival_worker/store/sql/chain.sql). The trigger waits for whoever writes
-- hashes, and makes others wait: so what was chained before it is what is read below. Its query is planned each time, since the
-- tables grow.
CREATE FUNCTION note_bidders() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    EXECUTE 'INSERT INTO public.bidders (user_id, item_id, first_bid_at) '
            'SELECT b.user_id, b.item_id, min(b.placed_at) FROM chained AS h JOIN public.bids AS b USING (item_id, epoch, seq) '
            'GROUP BY b.user_id, b.item_id ON CONFLICT DO NOTHING';
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION note_bidders FROM PUBLIC;

CREATE TRIGGER note_bidders AFTER INSERT ON event_hashes
    REFERENCING NEW TABLE AS chained FOR EACH STATEMENT
    WHEN (current_setting('bidding.notes_bidders', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION note_bidders();

INSERT INTO bidders (user_id, item_id, first_bid_at)
SELECT user_id, item_id, min(placed_at) FROM bids GROUP BY user_id, item_id
ON CONFLICT DO NOTHING;


-- For a seller's own items.
CREATE INDEX items_by_seller ON items (seller_id, created_at DESC, item_id DESC) WHERE seller_id IS NOT NULL;
CREATE INDEX items_by_seller_status ON items (seller_id, status, created_at DESC, item_id DESC) WHERE seller_id IS NOT NULL;


-- Watch lists. The only tables that gateways write: nothing is decided by them, and no event tells of them.
CREATE TABLE watched (
    user_id text NOT NULL,
    item_id text NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    -- The shard of the user's id.
    part    smallint NOT NULL,
    PRIMARY KEY (user_id, item_id)
);

CREATE INDEX watched_by_age ON watched (part, since);

-- How many rows of each part there are. Whoever changes a list locks its part first.
CREATE TABLE watch_parts (
    part  smallint PRIMARY KEY,
    items integer NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

INSERT INTO watch_parts (part) SELECT generate_series(0, 63);


-- Whether an item has been over for so long, or is unknown and was put on the list so long ago, that it leaves the list.
CREATE FUNCTION is_long_over(item text, since timestamptz, kept interval) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN coalesce(
        (SELECT i.status IN ('sold', 'unsold', 'cancelled') AND i.updated_at < now() - kept FROM items AS i WHERE i.item_id = item),
        since < now() - kept
    );


-- Put an item on a list: 'watched', or 'list full' or 'part full', and then only what is long over was changed.
CREATE FUNCTION watch_item(whose text, item text, of_part smallint, list_max integer, part_max integer, kept interval) RETURNS text
    LANGUAGE plpgsql AS $$
DECLARE
    held    integer;
    removed integer := 0;
    outcome text := 'watched';
BEGIN
    IF EXISTS (SELECT FROM watched AS w WHERE w.user_id = whose AND w.item_id = item) THEN
        RETURN outcome;
    END IF;
    -- Each statement after this one sees what the last one who had the lock has committed.
    SELECT p.items INTO STRICT held FROM watch_parts AS p WHERE p.part = of_part FOR UPDATE;
    IF (SELECT count(*) FROM watched AS w WHERE w.user_id = whose) >= list_max THEN
        DELETE FROM watched AS w WHERE w.user_id = whose AND is_long_over(w.item_id, w.since, kept);
        GET DIAGNOSTICS removed = ROW_COUNT;
        held := held - removed;
        IF removed = 0 THEN
            outcome := 'list full';
        END IF;
    ELSIF held >= part_max THEN
        -- Only the oldest are looked at: they are over before others, and a full part must not cost more with each try.
        DELETE FROM watched AS w
        USING (SELECT o.user_id, o.item_id FROM watched AS o WHERE o.part = of_part ORDER BY o.since LIMIT 1000) AS oldest
        WHERE (w.user_id, w.item_id) = (oldest.user_id, oldest.item_id) AND is_long_over(w.item_id, w.since, kept);
        GET DIAGNOSTICS removed = ROW_COUNT;
        held := held - removed;
        IF removed = 0 THEN
            outcome := 'part full';
        END IF;
    END IF;
    IF outcome = 'watched' THEN
        INSERT INTO watched (user_id, item_id, part) VALUES (whose, item, of_part) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            held := held + 1;
        END IF;
    END IF;
    UPDATE watch_parts AS p SET items = held WHERE p.part = of_part AND p.items <> held;
    RETURN outcome;
END $$;


-- Take an item off a list; whether it was on it.
CREATE FUNCTION unwatch_item(whose text, item text, of_part smallint) RETURNS boolean
    LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM watched AS w WHERE w.user_id = whose AND w.item_id = item) THEN
        RETURN false;
    END IF;
    PERFORM FROM watch_parts AS p WHERE p.part = of_part FOR UPDATE;
    DELETE FROM watched AS w WHERE w.user_id = whose AND w.item_id = item;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE watch_parts AS p SET items = p.items - 1 WHERE p.part = of_part;
    RETURN true;
END $$;
