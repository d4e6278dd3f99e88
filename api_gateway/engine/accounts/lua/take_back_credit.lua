-- Lowers what the account counts for shards that have lowered their leases; or, of an account that is being counted, opens it with
-- these.
--
-- KEYS[1] account (hash)   KEYS[2] cursors of the account's home (hash)   ARGV[1] generation
-- ARGV[2] the number of the counting for which these are the leases of all shards, and the admission of the home in
--         which it was read, "<number>|<admission>", which opens it; or ''
-- ARGV[3..] of each shard its name, its epoch, n and lease ('' = any amount)
-- Reply: 1 done   0 it is of another generation, in another state, or counted anew since
local generation, state, leased, counting = unpack(redis.call('HMGET', KEYS[1], 'generation', 'state', 'leased', 'counting'))
if generation ~= ARGV[1] then return 0 end
local is_opening = ARGV[2] ~= ''
if (state == 'counting') ~= is_opening then return 0 end
-- 1. Somebody collects the leases, and sleeps. 2. Another opens the account, and shards get more. 3. It is counted anew. 4. The first
-- must not open it with what was before.
local admission = redis.call('HGET', KEYS[2], 'admission') or ''
if is_opening and (counting or '0') .. '|' .. admission ~= ARGV[2] then return 0 end
local sum = is_opening and 0 or tonumber(leased)
for at = 3, #ARGV, 4 do
  local shard, told_epoch, told_n, told = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]) or 0
  local lease, epoch, n = 0, 0, 0
  if not is_opening then
    lease, epoch, n = string.match(redis.call('HGET', KEYS[1], shard) or '0|0|0|0', '^(%d+)|(%d+)|(%d+)|%d+$')
    lease, epoch, n = tonumber(lease), tonumber(epoch), tonumber(n)
  end
  -- Only what is newer than what is known, as in lease_credit.lua.
  if told_epoch > epoch or (told_epoch == epoch and told_n >= n) then
    sum = sum - lease + told
    redis.call('HSET', KEYS[1], shard, string.format('%d|%d|%d|0', told, told_epoch, told_n))
  end
end
redis.call('HSET', KEYS[1], 'leased', string.format('%d', sum), 'state', 'open')
if is_opening then redis.call('HSET', KEYS[1], 'admission', admission) end
return 1
