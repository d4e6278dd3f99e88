-- What a void makes of other rows than those of the struck bid. 'repriced': the bid stands, and the price that it had set does
-- not, because another bid was struck. (What is stored meets the wider check already: NOT VALID spares the look at every row.)
ALTER TABLE bids
    DROP CONSTRAINT bids_status_check,
    ADD CONSTRAINT bids_status_check CHECK (status IN ('valid', 'voided', 'repriced')) NOT VALID;

-- What a `voided` event (its seq and body) makes of a bid's row; null where that goes on to hold. The rule, and why, is in
-- shared/domain/voiding.py (fate_of). Of several voids the highest one counts: 'voided' comes after 'repriced'.
CREATE FUNCTION void_fate(void_seq bigint, body jsonb, bid_seq bigint, bid_id text, user_id text, kind text, amount bigint)
    RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN bid_seq >= void_seq THEN NULL
        WHEN bid_id IN (body ->> 'bid_id', (body ->> 'bid_id') || '/proxy')
            AND bid_seq - (body ->> 'voided_seq')::bigint BETWEEN 0 AND 1 THEN 'voided'
        WHEN body ->> 'bidder_id' IS NULL THEN NULL
        WHEN kind <> 'proxy' THEN CASE WHEN amount > (body ->> 'current_bid')::bigint THEN 'repriced' END
        WHEN amount > (body ->> 'current_bid')::bigint THEN 'voided'
        WHEN user_id = body ->> 'bidder_id' AND bid_seq > (body ->> 'voided_seq')::bigint
            AND bid_seq < (body ->> 'automatic_until')::bigint THEN 'voided'
    END;
