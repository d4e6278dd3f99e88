-- Asks the relay to publish again what the archive misses; rewind_published.lua takes the mark away.
--
-- KEYS[1] cursors (hash)   Reply: 1 asked, 0 asked already or the shard is lost or closed

---@include full

if redis.call('HEXISTS', KEYS[1], 'epoch') == 0 then return 0 end
write_though_full(KEYS[1])
return redis.call('HSET', KEYS[1], 'republish', '1')
