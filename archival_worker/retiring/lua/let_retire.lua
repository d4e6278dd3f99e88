-- Says whether Redis has anything of a closed item that the archive may not have; if not, makes the fence of its shard another one,
-- so that whoever read the archive before this does not write the item here (decode_fence in shared/redis_layout/cursors.py).
--
-- It works at `maxmemory`: its only write is to a number that is there, or takes the room of one.
--
-- KEYS[1] cursors (hash)   KEYS[2] item (hash)   KEYS[3] closed (zset)   KEYS[4] lost (set)
-- ARGV[1] item id
-- ARGV[2] the entry up to which all has to be archived, and ARGV[3] its epoch, as an earlier call told; '' at the first call
-- Reply: {1, epoch, 0} it has nothing   {0, epoch, 0} it has the item, or has lost it, or is about to remove it
--        {2, '', 0} the shard is lost or closed, or was rebuilt meanwhile   {3, epoch, entry} ask again: entries up to this one,
--        among which may be one of the item, are not archived yet
local epoch, last, archived = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'next', 'archived'))
if not epoch or (ARGV[3] ~= '' and epoch ~= ARGV[3]) then return {2, '', 0} end
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('ZSCORE', KEYS[3], ARGV[1]) or redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 1 then
  return {0, epoch, 0}
end
local wanted = tonumber(ARGV[2]) or tonumber(last or '0')
if tonumber(archived or '0') < wanted then return {3, epoch, wanted} end
redis.call('HINCRBY', KEYS[1], 'evictions', 1)
return {1, epoch, 0}
