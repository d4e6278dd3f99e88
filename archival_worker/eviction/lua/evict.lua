-- Removes a closed item from Redis, whatever there is of it, in one step: from then on the archive has it. Calling it twice, early
-- or from two places is harmless, since it looks for itself whether the item may go.
--
-- It works at `maxmemory`, where room is needed most: its first write frees memory.
--
-- KEYS[1] cursors (hash)   KEYS[2] closed (zset)   KEYS[3] deadlines (zset)   KEYS[4] opened (zset)   KEYS[5] lost (set)
-- KEYS[6] item (hash)      KEYS[7..] the item's other keys
-- ARGV[1] item id   ARGV[2] the shard's epoch when the archive was asked
-- ARGV[3] the seq of the last event of the item in the archive, up to which it is complete and exported
-- ARGV[4] seconds that a closed item is kept after its last event
-- ARGV[5] '1' where the item was known to have come back or been struck when the archive was asked, else '0'
-- Reply: 1 removed   0 it is not there   2 the shard is lost, closed, or in another epoch   3 it is not closed, or had another
--        event since   4 its last event is not archived, as far as Redis knows   5 it is too early

---@limit RETURNED_KEEP_S

local epoch, archived = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'archived'))
if epoch ~= ARGV[2] then return 2 end
local status, seq, updated_us, returned_us = unpack(redis.call('HMGET', KEYS[6], 'status', 'seq', 'updated_us', 'returned_us'))
if not status then
  -- Nothing may need what is left of an item without its hash.
  redis.call('UNLINK', unpack(KEYS, 6))
  -- Only the first time: then it was here, and what the archive told before may be old by now (decode_fence).
  if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], 'evictions', 1) end
  return 0
end
if (status ~= 'sold' and status ~= 'unsold' and status ~= 'cancelled') or seq ~= ARGV[3] then return 3 end
-- All that the item ever wrote is in entries up to this one: after its last event nothing happened to it. (A raised maximum has
-- an entry and no event, so the archive's seq alone does not say that it has all.) And `archived` never passes `published`.
local entry = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not entry or tonumber(entry) > tonumber(archived) then return 4 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if now < tonumber(updated_us) + tonumber(ARGV[4]) * 1000000 then return 5 end
-- The item came back for a void, which may be on its way; or a bid was struck, and others may not have heard of it yet.
if returned_us and now < tonumber(returned_us) + RETURNED_KEEP_S * 1000000 then return 5 end
-- If the void came after the archive was asked, nobody has checked how long ago it was exported.
if returned_us and ARGV[5] ~= '1' then return 5 end

redis.call('UNLINK', unpack(KEYS, 6))
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'evictions', 1)
return 1
