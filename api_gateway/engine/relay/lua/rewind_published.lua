-- Moves the `published` cursor of a shard back to `archived`: JetStream lost messages, and everything that is not archived
-- is published again. Consumers drop what they know already.
--
-- KEYS[1] lease   KEYS[2] cursors (hash)   ARGV[1] token   ARGV[2] identity of the stream that is there now
-- Reply: 1 done, 0 the lease is not ours

---@include full

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local archived = redis.call('HGET', KEYS[2], 'archived')
if not archived then return 0 end
write_though_full(KEYS[2])
redis.call('HSET', KEYS[2], 'published', archived, 'stream_id', ARGV[2], 'stream_seq', '0')
redis.call('HDEL', KEYS[2], 'republish')
return 1
