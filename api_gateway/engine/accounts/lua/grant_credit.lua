-- Raises a shard's lease by what the account has given it: once, however often this is called.
--
-- KEYS[1] cursors (hash)   KEYS[2] credit (hash)
-- ARGV[1] user and currency   ARGV[2] generation   ARGV[3] the shard's epoch   ARGV[4] n: the number of the raise   ARGV[5] by how much
-- Reply: 1 raised   0 it was before, or this raise is over
local epoch, admission = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'admission'))
if epoch ~= ARGV[3] then return 0 end
local lease = redis.call('HGET', KEYS[2], 'l:' .. ARGV[1])
local granted, generation, n, its_admission = string.match(lease or '', '^(%d*)|(%d+|%d+)|(%d+)|?(.*)$')
-- Another copy of the shard was admitted since: what it says its lease is may be more than the account knows.
if its_admission ~= (admission or '') then return 0 end
if generation ~= ARGV[2] or granted == '' or tonumber(n) + 1 ~= tonumber(ARGV[4]) then return 0 end
granted = string.format('%d', tonumber(granted) + tonumber(ARGV[5]))
redis.call('HSET', KEYS[2], 'l:' .. ARGV[1], granted .. '|' .. generation .. '|' .. ARGV[4] .. '|' .. its_admission)
return 1
