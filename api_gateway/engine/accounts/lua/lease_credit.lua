-- Gives a shard more of a bidder's spending limit, if there is as much left; shared/redis_layout/accounts.py says why that is safe.
--
-- KEYS[1] account (hash)   KEYS[2] cursors of the account's home (hash)
-- ARGV[1] shard   ARGV[2] generation   ARGV[3] the shard's epoch, ARGV[4] n, ARGV[5] lease, as the shard has just told
-- ARGV[6] how much more is needed, beyond the lease   ARGV[7] what is used, as the shard has told with it
-- Reply: { 0, n, by how much } raise the lease so   { 1 } there is not as much left   { 4 } the shard and the account do not know the
--        same generation   { 5 } it is being counted   { 6 } what the shard told is old: ask it again
local limit, generation, state, leased, record, its_admission, counting = unpack(redis.call('HMGET', KEYS[1], 'limit', 'generation',
  'state', 'leased', ARGV[1], 'admission', 'counting'))
if generation ~= ARGV[2] then return { 4 } end
if state ~= 'open' then return { 5 } end
if limit == '' then return { 4 } end
if (its_admission or '') ~= (redis.call('HGET', KEYS[2], 'admission') or '') then
  -- Another copy of the account: it may have forgotten what it gave. The shards know.
  redis.call('HSET', KEYS[1], 'state', 'counting', 'counting', string.format('%d', (tonumber(counting) or 0) + 1))
  return { 5 }
end
local F = '%d'
local told_epoch, told_n, told = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local lease, epoch, n, last = string.match(record or '0|0|0|0', '^(%d+)|(%d+)|(%d+)|(%d+)$')
lease, epoch, n, leased = tonumber(lease), tonumber(epoch), tonumber(n), tonumber(leased)
if told_epoch < epoch then return { 6 } end
if told_epoch == epoch then
  if told_n < n - 1 then return { 6 } end
  -- The last raise was given and is not there yet. It may be on its way, or whoever had it is gone.
  if told_n == n - 1 then return { 0, F:format(n), last } end
end
local need = tonumber(ARGV[6])
local left = tonumber(limit) - (leased - lease + told)
local by = 0
if left >= need then
  -- Somewhat more, so that not each bid has to ask.
  by = need + math.floor((left - need) / 8)
  told_n = told_n + 1
end
-- What is used beyond the lease, since it was led with before the limit, counts, too. Where there is a raise, it is part of the need.
local known = math.max(told + by, tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], 'leased', F:format(leased - lease + known), ARGV[1],
  string.format('%d|%d|%d|%d', known, told_epoch, told_n, by))
if by == 0 then return { 1 } end
return { 0, F:format(told_n), F:format(by) }
