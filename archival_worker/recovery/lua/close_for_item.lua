-- Closes the shard of a lost item, although the shard is not lost, so that it can be rebuilt: see api_gateway's close_shard.lua.
--
-- KEYS[1] cursors (hash)   KEYS[2] the item (hash)   Reply: 1 closed, 0 the shard is closed or lost, or the item is there
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
-- First a write that takes no memory: Redis allows it while full, and then the rest of the script, too.
redis.call('HDEL', KEYS[1], 'epoch')
redis.call('HSET', KEYS[1], 'stale', epoch)
return 1
