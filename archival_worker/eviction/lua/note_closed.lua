-- Notes a closed item that nobody has noted: it was closed by a gateway of an older version.
--
-- KEYS[1] cursors (hash)   KEYS[2] closed (zset)   KEYS[3] item (hash)   ARGV[1] item id
-- Reply: 1 noted, 0 it is noted already, or not closed, or the shard is lost or closed
local epoch, last_entry = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'next'))
if not epoch then return 0 end
local status = redis.call('HGET', KEYS[3], 'status')
if status ~= 'sold' and status ~= 'unsold' and status ~= 'cancelled' then return 0 end
-- Its last entry is this one or one before it.
return redis.call('ZADD', KEYS[2], 'NX', last_entry, ARGV[1])
