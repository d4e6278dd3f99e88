-- Has an account counted anew: it gives no leases until then. Also notes that all of it is done.
--
-- KEYS[1] account (hash)   KEYS[2] spreading (zset)   ARGV[1] user and currency   ARGV[2] generation
-- ARGV[3] recount; again: look at it once more in a second; done: all shards know it, and the archive, too
-- Reply: 1 noted   0 it is of another generation
if (redis.call('HGET', KEYS[1], 'generation') or '') ~= ARGV[2] then return 0 end
local member = '$' .. ARGV[1]
if ARGV[3] == 'done' then
  redis.call('ZREM', KEYS[2], member)
  return 1
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], string.format('%d', (tonumber(time[1]) + 1) * 1000000 + tonumber(time[2])), member)
if ARGV[3] == 'recount' and redis.call('HGET', KEYS[1], 'state') ~= 'counting' then
  redis.call('HINCRBY', KEYS[1], 'counting', 1)
  redis.call('HSET', KEYS[1], 'state', 'counting')
end
return 1
