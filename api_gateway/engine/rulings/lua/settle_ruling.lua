-- Notes how far a ruling has been spread, if it is still the one that was spread.
--
-- KEYS[1] rulings (hash)   KEYS[2] spreading (zset)   ARGV[1] field   ARGV[2] value ('' = none)
-- ARGV[3] again: spread it once more in a second; done: all shards have it, and the archive, too; taken_back: the same of one
--         without flags, which is forgotten in an hour; forgotten: all shards but this one have forgotten it
-- Reply: 1 noted   0 there is a later ruling, which is spread by itself
local field, value, what = ARGV[1], ARGV[2], ARGV[3]
local later = '!' .. field
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if (redis.call('HGET', KEYS[1], field) or '') ~= value then
  if what == 'forgotten' then redis.call('ZREM', KEYS[2], later) end
  return 0
end
-- 1. A ruling that was taken back is due to be forgotten; others forget it. 2. It is made again, and taken back again, which
-- removes what was due. 3. The first is settled: it must not remove what the second has yet to spread.
if what == 'forgotten' and not redis.call('ZSCORE', KEYS[2], later) then return 0 end
if what == 'again' then
  redis.call('ZADD', KEYS[2], string.format('%d', now + 1000000), field)
elseif what == 'forgotten' then
  redis.call('ZREM', KEYS[2], later)
  redis.call('HDEL', KEYS[1], field)
else
  redis.call('ZREM', KEYS[2], field)
  if what == 'taken_back' then redis.call('ZADD', KEYS[2], string.format('%d', now + 3600000000), later) end
end
return 1
