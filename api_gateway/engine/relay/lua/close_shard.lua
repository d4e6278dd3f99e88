-- Closes a shard that went back in time: more of it is known elsewhere than this Redis has given out. Without `epoch` every
-- script refuses it, as if it had no cursors. What it has stays for `recover` to look at, and `stale` says why.
--
-- KEYS[1] cursors (hash)   ARGV[1], ARGV[2] epoch and n of an entry that is known elsewhere
-- Reply: 1 closed, 0 it has given out that entry, or has no cursors

---@include full

local cursors = redis.call('HMGET', KEYS[1], 'epoch', 'next')
if not cursors[1] then return 0 end
local epoch, known_epoch = tonumber(cursors[1]), tonumber(ARGV[1])
if epoch > known_epoch or (epoch == known_epoch and tonumber(cursors[2]) >= tonumber(ARGV[2])) then return 0 end
write_though_full(KEYS[1])
redis.call('HSET', KEYS[1], 'stale', cursors[1])
redis.call('HDEL', KEYS[1], 'epoch')
return 1
