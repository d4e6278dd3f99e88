-- Claims a shard without cursors for one run of `recover`, also from an earlier run that may still be at work. From here on the
-- earlier one writes nothing more: each write of a run checks the mark (write_claimed.lua, restore_shard.lua).
--
-- KEYS[1] cursors (hash)   KEYS[2] the mark of a rebuilding under way (string)
-- ARGV[1] the run's number: of two runs the later one has the higher number   ARGV[2] its mark, "<number>:<token>"
-- ARGV[3] the epoch in which the shard was closed when the run archived its outbox, '' where it was not closed
-- Reply: 1 claimed, 0 the shard has its cursors: it lives, 2 a later run has it, 3 it was closed since, 4 claimed, and an earlier run
--        had it: it may have written items
local cursors = redis.call('HMGET', KEYS[1], 'epoch', 'stale')
if cursors[1] then return 0 end
local mark = redis.call('GET', KEYS[2])
if mark and mark ~= ARGV[2] and tonumber(string.match(mark, '^%d+') or '0') >= tonumber(ARGV[1]) then return 2 end
-- A gateway may close a shard at any moment: Redis went back, or JetStream has another message in an entry's place. The run drops
-- the outbox, and has archived only those of shards that it saw closed. A closed shard does not change: same epoch, same outbox.
if (cursors[2] or '') ~= ARGV[3] then return 3 end
-- The first write takes no memory and changes nothing. A full Redis allows it, and then allows the rest of the script too. That is
-- needed because a closed shard frees its memory only after it is claimed.
redis.call('HDEL', KEYS[1], '')
redis.call('SET', KEYS[2], ARGV[2])
if mark and mark ~= ARGV[2] then return 4 end
return 1
