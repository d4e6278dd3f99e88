-- Puts a closed item that had left Redis back there, all of it in one step. Its parts were written beside it before,
-- under keys that expire.
--
-- KEYS[1] cursors (hash)   KEYS[2] closed (zset)   KEYS[3] item (hash)   KEYS[4..] of each part where it waits and where it
--         belongs; then the other keys of the item, which are to be empty
-- ARGV[1] item id   ARGV[2] the shard's fence from before the archive was asked   ARGV[3] how many parts
-- ARGV[4] when the verdicts expire, in milliseconds   ARGV[5] which part they are, counted from 1 (0 = there are none)
-- ARGV[6..] the fields of the hash: name, value, ...
-- Reply: 1 it is there   0 it was there already   2 the fence is another one, or the shard is lost or closed   3 a part is gone
local epoch, run, evictions = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'run', 'evictions'))
-- What the archive told is old if the item was here and has left since, perhaps with another void (decode_fence in
-- shared/redis_layout/cursors.py).
if not epoch or ARGV[2] ~= epoch .. '|' .. (run or '') .. '|' .. (evictions or '0') then return 2 end
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local parts = tonumber(ARGV[3])
for part = 1, parts do
  if redis.call('EXISTS', KEYS[2 + 2 * part]) == 0 then return 3 end
end
local time = redis.call('TIME')
local now = string.format('%d', tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[3], 'returned_us', now, unpack(ARGV, 6))
for at = 4 + 2 * parts, #KEYS do redis.call('DEL', KEYS[at]) end
for part = 1, parts do
  local waits, belongs = KEYS[2 + 2 * part], KEYS[3 + 2 * part]
  redis.call('RENAME', waits, belongs)
  if part == tonumber(ARGV[5]) then
    redis.call('PEXPIREAT', belongs, ARGV[4])
  else
    redis.call('PERSIST', belongs)
  end
end
-- All of it is archived, so it may leave again when its time has come.
redis.call('ZADD', KEYS[2], '0', ARGV[1])
return 1
