-- Tells Redis how far a shard's outbox is committed in PostgreSQL, and trims the outbox there, in one step.
--
-- Only ever upwards, and only within one shard epoch: several archivers send what they know, in any order.
-- `published` comes along where it is behind: what is archived need not be published again.
--
-- The trim is exact. An approximate one (`~`) drops whole nodes alone, and a node of the default size holds a hundred small
-- entries: the outbox of a quiet shard would never become empty, and its length could not be used as an alarm. What an exact
-- trim costs more is marking entries in one node of at most 4 KiB.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)
-- ARGV[1] shard epoch      ARGV[2] n: everything up to this entry is committed
-- Reply: { code, epoch, archived } with the cursors as they are now, and code
--        1 moved   0 was as far already   2 other epoch   3 no cursors (then epoch and archived are 0)
--        4 more is committed than this Redis has given out: it is an older copy (then `archived` is what it has given out)

local cursors_key, outbox_key = KEYS[1], KEYS[2]
local n = tonumber(ARGV[2])

local cursors = redis.call('HMGET', cursors_key, 'epoch', 'archived', 'published', 'next')
if not cursors[1] then return { 3, 0, 0 } end
local epoch, archived, published = tonumber(cursors[1]), tonumber(cursors[2] or 0), tonumber(cursors[3] or 0)
if epoch ~= tonumber(ARGV[1]) then return { 2, epoch, archived } end
if n > tonumber(cursors[4]) then return { 4, epoch, tonumber(cursors[4]) } end
if n <= archived then return { 0, epoch, archived } end

-- The trim comes first because it is the one write here that Redis allows while it is out of memory, and after a script's
-- first write it allows the others too. A Redis that is full of outbox can only be helped from here.
redis.call('XTRIM', outbox_key, 'MINID', string.format('%.0f', n + 1))
redis.call('HSET', cursors_key, 'archived', ARGV[2])
if published < n then redis.call('HSET', cursors_key, 'published', ARGV[2]) end
return { 1, epoch, n }
