-- An item as it stands; only where it has changed since it was read last.
--
-- KEYS[1] item (hash), KEYS[2] its shard's cursors (hash), KEYS[3] the shard's items that are noted as lost (set)
-- ARGV[6] the item's id
-- ARGV[1..5] epoch, seq, updated_us, leader_max and returned_us of what the caller has; nothing where it has none
-- Reply   the hash as fields and values in turn, or
--         { 0, the shard's epoch (nil where it is lost or closed), whether the item is noted as lost }: there is none
--         1  its shard is closed: this is an older copy, or half rebuilt
--         2  it is what the caller has
local stands = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'updated_us', 'leader_max', 'returned_us')
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if not stands[1] then return {0, epoch, redis.call('SISMEMBER', KEYS[3], ARGV[6])} end
if not epoch then return 1 end
-- A maximum that is raised has no number of its own, and an item that comes back is what it was.
stands[5] = stands[5] or ''
for at = 1, 5 do
  if stands[at] ~= ARGV[at] then return redis.call('HGETALL', KEYS[1]) end
end
return 2
