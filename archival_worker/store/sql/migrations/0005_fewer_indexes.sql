-- No query asks for the bids of a user over all items, and every archived bid paid for this index: user ids come in no order,
-- so each row touched a page of its own. Whoever analyses the archive makes it on a copy.
DROP INDEX bids_by_user;
