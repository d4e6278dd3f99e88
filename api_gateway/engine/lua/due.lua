-- The items of a shard whose next transition has come, by Redis TIME; earliest first.
--
-- KEYS[1] deadlines (zset)   ARGV[1] how many at most   Reply: item ids
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now), 'LIMIT', 0, ARGV[1])
