-- What a void makes of other rows than those of the struck bid. 'repriced': the bid stands, and the price that it had set does
-- not, because another bid was struck. (What is stored meets the wider check already: NOT VALID spares the look at every row.)
ALTER TABLE bids
    DROP CONSTRAINT bids_status_check,
    ADD CONSTRAINT bids_status_check CHECK (status IN ('valid', 'voided', 'repriced')) NOT VALID;

-- What a `voided` event makes of a bid's row; null where that goes on to hold. The first six arguments are the event's seq and
-- members of its body. The rule, and why, is in shared/domain/voiding.py (fate_of). Of several voids the highest one counts:
-- 'voided' comes after 'repriced'.
CREATE FUNCTION void_fate(void_seq bigint, struck_id text, voided_seq bigint, bidder_id text, automatic_until bigint, price bigint,
                          bid_seq bigint, bid_id text, user_id text, kind text, amount bigint)
    RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN bid_seq >= void_seq THEN NULL
        WHEN bid_id IN (struck_id, struck_id || '/proxy') AND bid_seq - voided_seq BETWEEN 0 AND 1 THEN 'voided'
        WHEN bidder_id IS NULL THEN NULL
        WHEN kind <> 'proxy' THEN CASE WHEN amount > price THEN 'repriced' END
        WHEN amount > price THEN 'voided'
        WHEN user_id = bidder_id AND bid_seq > voided_seq AND bid_seq < automatic_until THEN 'voided'
    END;
