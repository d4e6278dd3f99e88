-- Remember that tokens are revoked, and who revoked them.
--
-- KEYS[1]  the hash of revocations: name -> "<at_s>:<until_s>", and "epoch" -> a text that changes with each of them
-- ARGV[1]  the new epoch
-- ARGV[2]  how long it holds, in seconds
-- ARGV[3]  how many there may be
-- ARGV[4]  what the archive is told of it: an act as a JSON object without its time; empty for nothing
-- ARGV[5]  what the entry names instead of an item   ARGV[6] outbox bound (entries of a shard)
-- ARGV[7…] names; a name with "=<at_s>:<until_s>" behind it is put back as it was
-- KEYS[2]  cursors (hash), KEYS[3] outbox (stream): of the shard beside which the hash is
--
-- Replies with { the time, in seconds, at which it was done, n }. n is the outbox entry, 0 where there is none: a
-- stolen token has to be refused also while the shard has no cursors, or its outbox is at its bound. Or replies with
-- { "FULL" }, and nothing was changed.
local key, epoch, kept_s, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local told, first = ARGV[4], 7
local time = redis.call('TIME')
local now_s = tonumber(time[1])
local count = #ARGV - first + 1

if redis.call('HLEN', key) + count > most then
  -- Revocations that are over make room.
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local until_s = tonumber(string.match(all[at + 1], '^%d+:(%d+)$'))
    if all[at] ~= 'epoch' and (not until_s or until_s <= now_s) then
      redis.call('HDEL', key, all[at])
    end
  end
  if redis.call('HLEN', key) + count > most then
    return { 'FULL' }
  end
end

local n = 0
if told ~= '' then
  local epoch_of_shard, last, archived = unpack(redis.call('HMGET', KEYS[2], 'epoch', 'next', 'archived'))
  if epoch_of_shard and tonumber(last) - tonumber(archived) < tonumber(ARGV[6]) then
    n = tonumber(last) + 1
    local now = string.format('%d', now_s * 1000000 + tonumber(time[2]))
    local entry = string.format('%d', n)
    redis.call('XADD', KEYS[3], entry .. '-0', 'item', ARGV[5], 'events', '[]', 'acts', '[{"ts_us":' .. now .. ',' .. string.sub(told, 2) .. ']')
    redis.call('HSET', KEYS[2], 'next', entry)
  end
end

for at = first, #ARGV do
  local name, back = string.match(ARGV[at], '^([^=]+)=(%d+:%d+)$')
  if not back then
    redis.call('HSET', key, ARGV[at], now_s .. ':' .. (now_s + kept_s))
  elseif redis.call('HEXISTS', key, name) == 0 then
    redis.call('HSET', key, name, back)
  end
end
redis.call('HSET', key, 'epoch', epoch)
return { tostring(now_s), n }
