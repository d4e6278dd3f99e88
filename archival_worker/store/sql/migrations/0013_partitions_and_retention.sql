-- What grows with every bid, in 16 parts by a hash of the item; and items whose log is in its export alone.
--
-- The parts are taken of the item, because an item's keys are what keeps an event that is delivered twice from being stored twice,
-- and PostgreSQL wants the column of the parts in every key (docs/decisions/0073-partitions-and-a-retention.md).
--
-- One transaction: if it is killed half-way, everything is as it was. It locks these tables against reading and writing until it
-- has ended; meanwhile bids are taken, and wait in Redis and in the stream. Indexes are made after the rows are there.
--
-- All is locked at once, in the order in which archival workers take it: they lock their shards first, and one that had done so and
-- waited for the bids while rows are moved would end this in a deadlock, after all of them were moved. Shards can be read meanwhile,
-- as whoever shows closed items does.
LOCK TABLE shard_cursors IN EXCLUSIVE MODE;
LOCK TABLE bids, event_hashes, sealed, dead_letters IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
    parts CONSTANT integer := 16;
    -- Of a table: in how many steps its rows are moved, each of which is told.
    steps CONSTANT integer := 10;
    moved text;
    whole text;
    pages bigint;
    named text;
BEGIN
    FOREACH moved IN ARRAY ARRAY['bids', 'event_hashes', 'sealed'] LOOP
        whole := moved || '_in_one';
        EXECUTE format('ALTER TABLE %I RENAME TO %I', moved, whole);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY HASH (item_id)', moved, whole);
        FOR part IN 0 .. parts - 1 LOOP
            named := moved || '_' || lpad(part::text, 2, '0');
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)', named, moved, parts, part);
        END LOOP;
        -- By ranges of pages, in the order of the disk: each is read once.
        pages := pg_relation_size(whole) / current_setting('block_size')::bigint;
        FOR step IN 1 .. CASE WHEN pages > 0 THEN steps ELSE 0 END LOOP
            EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE ctid >= %L::tid AND ctid < %L::tid', moved, whole,
                           format('(%s,0)', pages * (step - 1) / steps), format('(%s,0)', pages * step / steps));
            IF pages > 1000 THEN
                RAISE NOTICE '%: % of % pages are in parts', moved, pages * step / steps, pages;
            END IF;
        END LOOP;
        EXECUTE format('DROP TABLE %I', whole);
    END LOOP;
END $$;

ALTER TABLE bids ADD PRIMARY KEY (item_id, epoch, seq);
ALTER TABLE bids ADD UNIQUE (item_id, epoch, bid_id);
ALTER TABLE event_hashes ADD PRIMARY KEY (item_id, epoch, seq);
ALTER TABLE sealed ADD PRIMARY KEY (item_id, epoch, n, at);
-- As in 0012: it went with the table.
CREATE TRIGGER note_bidders AFTER INSERT ON event_hashes
    REFERENCING NEW TABLE AS chained FOR EACH STATEMENT
    WHEN (current_setting('bidding.notes_bidders', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION note_bidders();
ANALYZE bids, event_hashes, sealed;


-- Closed items whose log (bids, events, their hashes, sealed facts) is in the export alone, or is on its way there: written by
-- `retention`. The rows in items, chains and exports stay, so that the item is shown as it was, and its id stays used.
--
-- 'checking': somebody looks whether the log may go; nothing is told of it yet, but the item does not come back into Redis.
-- 'retiring': from here on nothing of the item is stored or told but this; its rows are being removed. 'retired': they are gone.
CREATE TABLE retired_items (
    item_id    text PRIMARY KEY,
    state      text NOT NULL DEFAULT 'checking' CHECK (state IN ('checking', 'retiring', 'retired')),
    -- The last event, and its hash.
    epoch      integer NOT NULL,
    seq        bigint NOT NULL,
    head       bytea NOT NULL CHECK (length(head) = 32),
    -- Where the export is: a bucket or folder, the name in it; its size, and what identifies it.
    place      text NOT NULL,
    object_key text NOT NULL,
    bytes      bigint NOT NULL,
    sha256     bytea NOT NULL CHECK (length(sha256) = 32),
    -- What is in it; events count bids too.
    events     bigint NOT NULL,
    bids       bigint NOT NULL,
    -- Which events the item had: of each epoch its number, and the first and the last seq, all in one flat array.
    spans      bigint[] NOT NULL DEFAULT '{}',
    -- What is told of the item and was made of its events (read_closed in shared/archive_reads/sql/closed.sql).
    extensions integer NOT NULL DEFAULT 0,
    shift_us   bigint NOT NULL DEFAULT 0,
    moved_us   bigint NOT NULL DEFAULT 0,
    actor      text NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    -- Counts the items that retire, so that caches can ask for those after the last one that they know.
    n          bigint UNIQUE,
    CHECK ((state = 'checking') = (retired_at IS NULL)),
    CHECK ((state = 'checking') = (n IS NULL))
);

CREATE INDEX retired_items_open ON retired_items (item_id) WHERE state <> 'retired';
CREATE SEQUENCE retirements;

-- Removes at most so many rows of a retiring item's log, and ends it when none is left; returns how many it removed. It runs as the
-- owner of the tables: nobody else may remove a row, and so nobody removes one of an item that is not retiring.
CREATE FUNCTION remove_log(of_item text, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    emptied text;
    removed integer := 0;
    found_now integer;
BEGIN
    PERFORM FROM public.retired_items AS g
    JOIN public.exports AS x ON (x.item_id, x.epoch, x.seq) = (g.item_id, g.epoch, g.seq)
    WHERE g.item_id = of_item AND g.state = 'retiring' AND x.state = 'confirmed' AND x.head = g.head;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'item % is not retiring', of_item;
    END IF;
    FOREACH emptied IN ARRAY ARRAY['bids', 'event_hashes', 'sealed', 'events'] LOOP
        -- All rows of an item are in one part of a table, so their places in it name them.
        EXECUTE format('DELETE FROM public.%1$I WHERE item_id = $1 AND ctid = ANY (ARRAY('
                       'SELECT ctid FROM public.%1$I WHERE item_id = $1 LIMIT $2))', emptied) USING of_item, most - removed;
        GET DIAGNOSTICS found_now = ROW_COUNT;
        removed := removed + found_now;
    END LOOP;
    IF removed < most THEN
        UPDATE public.retired_items SET state = 'retired' WHERE item_id = of_item;
    END IF;
    RETURN removed;
END $$;
REVOKE ALL ON FUNCTION remove_log FROM PUBLIC;

-- What comes of an item after its log has retired, and was never stored.
ALTER TABLE dead_letters
    DROP CONSTRAINT dead_letters_reason_check,
    ADD CONSTRAINT dead_letters_reason_check CHECK (reason IN ('poison', 'clash', 'former_epoch', 'retired')),
    DROP CONSTRAINT dead_letters_outcome_check,
    ADD CONSTRAINT dead_letters_outcome_check
        CHECK (outcome IN ('stored', 'poison', 'clash', 'former_epoch', 'retired'));
