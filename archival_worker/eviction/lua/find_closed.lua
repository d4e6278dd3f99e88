-- Which shards have closed items.
--
-- KEYS    closed items of each shard (zset)
-- Reply   see few.lua: 1 for each such shard

---@include few

local function has_some(closed)
  if redis.call('EXISTS', KEYS[closed]) == 1 then return 1 end
end

return tell_of_few(1, 0, 0, has_some)
