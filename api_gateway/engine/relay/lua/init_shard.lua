-- Gives a shard its cursors, once. Every other script refuses a shard without cursors, so that a Redis that lost its data
-- never starts an item again at zero.
--
-- KEYS[1] cursors (hash)   ARGV[1] shard epoch   ARGV[2] run of Redis   Reply: 1 made, 0 it has cursors already
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'next', '0', 'published', '0', 'archived', '0', 'stream_id', '',
  'stream_seq', '0', 'run', ARGV[2])
return 1
