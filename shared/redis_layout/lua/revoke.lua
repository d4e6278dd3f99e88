-- Remember that tokens are revoked.
--
-- KEYS[1]  the hash of revocations: name -> "<at_s>:<until_s>", and "epoch" -> a text that changes with each of them
-- ARGV[1]  the new epoch
-- ARGV[2]  how long it holds, in seconds
-- ARGV[3]  how many there may be
-- ARGV[4…] names; a name with "=<at_s>:<until_s>" behind it is put back as it was
--
-- Replies with the time, in seconds, at which it was done; or with "FULL", and nothing was changed.
local key, epoch, kept_s, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now_s = tonumber(redis.call('TIME')[1])

if redis.call('HLEN', key) + #ARGV - 3 > most then
  -- Those that hold no more make room.
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local until_s = tonumber(string.match(all[at + 1], '^%d+:(%d+)$'))
    if all[at] ~= 'epoch' and (not until_s or until_s <= now_s) then
      redis.call('HDEL', key, all[at])
    end
  end
  if redis.call('HLEN', key) + #ARGV - 3 > most then
    return 'FULL'
  end
end

for at = 4, #ARGV do
  local name, back = string.match(ARGV[at], '^([^=]+)=(%d+:%d+)$')
  if not back then
    redis.call('HSET', key, ARGV[at], now_s .. ':' .. (now_s + kept_s))
  elseif redis.call('HEXISTS', key, name) == 0 then
    redis.call('HSET', key, name, back)
  end
end
redis.call('HSET', key, 'epoch', epoch)
return tostring(now_s)
