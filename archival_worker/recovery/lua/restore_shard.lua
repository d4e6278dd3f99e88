-- Gives a rebuilt shard its cursors, in a new epoch, with an empty outbox: the last step of rebuilding it, which lets bids in
-- again. It must not touch a shard that is open, or that another run has claimed.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)   KEYS[3] the mark of a rebuilding under way
-- KEYS[4] the items that were found to be lost (set)   KEYS[5] those whose `created` event is not archived (zset)
-- KEYS[6] what was ruled on bidders for all items, KEYS[7] the shard's part of their accounts (hashes): the run has written both
-- ARGV[1] shard epoch   ARGV[2] the run's mark
-- Reply: 1 done, 0 it has cursors, 2 the mark is another one
if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 2 end
local marks = redis.call('EXISTS', KEYS[6]) == 1 and 'L' or ''
if string.find(redis.call('HGET', KEYS[6], '*') or '', '^A') then marks = 'AL' end
if redis.call('EXISTS', KEYS[7]) == 1 then marks = marks .. 'S' end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'next', '0', 'published', '0', 'archived', '0', 'stream_id', '',
  'stream_seq', '0', 'rulings', marks)
return 1
