-- What Redis has of an item that somebody wants to create, all of one moment.
--
-- KEYS[1] item (hash)  KEYS[2] its shard's cursors (hash)  KEYS[3] its shard's opened items (zset)
-- ARGV[1] the item's id
-- Reply   { epoch, run, evictions, whether the item is there, the entry that opened it (nil where it is archived, or was never
--         opened) }; the first three make the shard's fence (shared/redis_layout/cursors.py, decode_fence)
local fence = redis.call('HMGET', KEYS[2], 'epoch', 'run', 'evictions')
return { fence[1], fence[2], fence[3], redis.call('EXISTS', KEYS[1]), redis.call('ZSCORE', KEYS[3], ARGV[1]) }
