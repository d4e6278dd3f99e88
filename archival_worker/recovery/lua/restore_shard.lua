-- Gives a rebuilt shard its cursors, in a new epoch, with an empty outbox: the last step of rebuilding it, which lets bids in
-- again. It must not touch a shard that is open, or that another run has claimed.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)   KEYS[3] the mark of a rebuilding under way
-- KEYS[4] the items that were found to be lost (set)   KEYS[5] those whose `created` event is not archived (zset)
-- ARGV[1] shard epoch   ARGV[2] the run's mark
-- Reply: 1 done, 0 it has cursors, 2 the mark is another one
if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 2 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'next', '0', 'published', '0', 'archived', '0', 'stream_id', '',
  'stream_seq', '0')
return 1
