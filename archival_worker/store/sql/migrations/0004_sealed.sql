-- What is needed to rebuild an item as it was and is in no event: bidders' maxima, the keys of headers, and the verdicts under
-- them (shared/sealed.py). For `recover` alone. No list, history, export or chain reads this table; like the reserve price,
-- it is to be shown to nobody.
--
-- One row per accepted bid that had one of these, and per bid that was struck (bid_id null: that user's maximum is gone).
-- The facts of an item follow each other as their outbox entries do, and within an entry by `at`, counted from 1.
CREATE TABLE sealed (
    item_id    text NOT NULL,
    epoch      integer NOT NULL,
    n          bigint NOT NULL,
    at         integer NOT NULL,
    -- The item right after it. An event after that has the next number.
    seq        bigint NOT NULL,
    leader_id  text,
    leader_max bigint NOT NULL,
    runner_up  bigint NOT NULL,
    user_id    text NOT NULL,
    bid_id     text,
    amount     bigint,
    max_amount bigint,
    key        text,
    verdict    text,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (item_id, epoch, n, at)
);
