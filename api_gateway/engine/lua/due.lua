-- What of each shard is due by Redis TIME, earliest first: items whose next transition has come, or rulings to be spread.
--
-- KEYS    of each shard what is to come (zset: member, and its microsecond)   ARGV[1] how many of a shard at most
-- Reply   see few.lua: the members, of shards that have some

---@include few

local time = redis.call('TIME')
local now = string.format('%d', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local most = ARGV[1]

local function due(key)
  local members = redis.call('ZRANGEBYSCORE', KEYS[key], '-inf', now, 'LIMIT', 0, most)
  if #members > 0 then return members end
end

return tell_of_few(1, 1, 0, due)
