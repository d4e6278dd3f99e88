-- Closes a shard, as close_shard.lua does, when one of its entries cannot be published: JetStream has another message
-- under the entry's id. One of the two is wrong, and nothing may be built on either before `recover` has looked at
-- them.
--
-- KEYS[1] lease   KEYS[2] cursors (hash)   ARGV[1] token   ARGV[2] shard epoch   ARGV[3] run of Redis
-- Reply: 1 closed, 0 lease, epoch or run no longer ours

---@include full

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local cursors = redis.call('HMGET', KEYS[2], 'epoch', 'run')
if cursors[1] ~= ARGV[2] or (cursors[2] or '') ~= ARGV[3] then return 0 end
write_though_full(KEYS[2])
redis.call('HSET', KEYS[2], 'stale', cursors[1])
redis.call('HDEL', KEYS[2], 'epoch')
return 1
