-- Lowers a shard's lease to what is used of it, and tells what is used. That is more than the lease where it was led with before there
-- was a limit: then the account hears of it, and the lease stays. Else it would be raised here without the account's knowledge, and
-- what is free of it later would be given twice.
--
-- KEYS[1] cursors (hash)   KEYS[2] credit (hash)   ARGV[1] user and currency   ARGV[2] generation
-- ARGV[3] n is to be above this one
-- Reply: { 1, the shard's epoch, n, used }, '' for it where the lease is of any amount   { 2 } the shard is lost or closed
--        { 4 } it knows another generation, or none, or has not counted what the bidder leads with
local BEHIND_MOST = 1000000
local epoch, admission = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'admission'))
if not epoch then return { 2 } end
local used, lease, mark = unpack(redis.call('HMGET', KEYS[2], 'u:' .. ARGV[1], 'l:' .. ARGV[1], 'c:' .. ARGV[1]))
local granted, generation, n, its_admission = string.match(lease or '', '^(%d*)|(%d+|%d+)|(%d+)|?(.*)$')
admission = admission or ''
if mark or generation ~= ARGV[2] then return { 4 } end
-- A raise that is on its way must not come after this: it has the number that is given out here.
n = math.max(tonumber(n), tonumber(ARGV[3])) + 1
-- Another copy of the shard: the one before it may have given out the next numbers. Raises and reports with these may still be on
-- their way.
local is_of_now = its_admission == admission
if not is_of_now then n = n + BEHIND_MOST end
n = string.format('%d', n)
local told = ''
if granted ~= '' then
  told = used
  -- A lease of a former admission may have been given to others since, also the part that is used.
  granted = is_of_now and string.format('%d', math.min(tonumber(granted), tonumber(used))) or '0'
end
redis.call('HSET', KEYS[2], 'l:' .. ARGV[1], granted .. '|' .. generation .. '|' .. n .. '|' .. admission)
return { 1, epoch, n, told }
