-- Gives a rebuilt shard its cursors, in a new epoch, with an empty outbox: the last step of rebuilding it, and the one that
-- lets bids in again. Nothing that begins a shard anew may be done to one that lives.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)   KEYS[3] the mark of a rebuilding under way   ARGV[1] shard epoch
-- Reply: 1 done, 0 it has cursors
if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'next', '0', 'published', '0', 'archived', '0', 'stream_id', '',
  'stream_seq', '0')
return 1
