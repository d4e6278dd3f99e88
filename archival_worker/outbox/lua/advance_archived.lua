-- Tells Redis how far a shard's outbox is committed in PostgreSQL, and trims the outbox there, in one step.
--
-- The cursor moves only up, and only within one shard epoch: several archivers send what they know, in any order.
--
-- And never past `published`, which only the relay moves. The archive counts entries by number, and after a failover a number
-- may belong to another bid:
--   1. A relay sends entry 58. Redis fails over to a replica that has 57, and the comparison finds no more than 57.
--   2. The replica gives 58 to another bid. The lease is still the dead relay's, so nobody publishes it yet.
--   3. The first 58 arrives, and is archived. Were `archived` and `published` moved to 58, the second 58 would be trimmed without
--      ever having been published, and be acknowledged at BID_ACK=log.
-- So the second 58 waits for its own PubAck, and in the archive the two become a clash, which raises an alarm.
--
-- The trim is exact. An approximate one (`~`) drops only whole nodes, and a node of the default size holds a hundred small
-- entries: the outbox of a quiet shard would never become empty, and its length could not be used as an alarm. An exact trim
-- costs little more: it marks entries in one node of at most 4 KiB.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)   KEYS[3] items whose `created` event is not archived (zset)
-- ARGV[1] shard epoch      ARGV[2] n: everything up to this entry is committed
-- Reply: { code, epoch, archived } with the cursors as they are now, and code
--        1 moved   0 was as far already   2 other epoch   3 no cursors (then epoch and archived are 0)
--        4 more is committed than this Redis has given out: it is an older copy (then `archived` is what it has given out)
--        5 more is committed than is published, and `archived` went up to `published`: ask again

local cursors_key, outbox_key = KEYS[1], KEYS[2]
local n = tonumber(ARGV[2])

local cursors = redis.call('HMGET', cursors_key, 'epoch', 'archived', 'published', 'next')
if not cursors[1] then return { 3, 0, 0 } end
local epoch, archived, published = tonumber(cursors[1]), tonumber(cursors[2] or 0), tonumber(cursors[3] or 0)
if epoch ~= tonumber(ARGV[1]) then return { 2, epoch, archived } end
if n > tonumber(cursors[4]) then return { 4, epoch, tonumber(cursors[4]) } end
if n <= archived then return { 0, epoch, archived } end
local code = 1
if n > published then n, code = published, 5 end
if n <= archived then return { code, epoch, archived } end

-- The trim comes first because it is the only write here that Redis allows while it is out of memory; after a script's first
-- write it allows the others too. Nothing else makes room in a Redis that its outbox has filled.
redis.call('XTRIM', outbox_key, 'MINID', string.format('%.0f', n + 1))
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', n))
redis.call('HSET', cursors_key, 'archived', string.format('%.0f', n))
return { code, epoch, n }
