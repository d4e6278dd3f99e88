-- Claims a shard without cursors for one run of `recover`, away from an earlier run that may still be at it. From here on the
-- earlier one writes nothing more: everything that a run writes is checked against the mark (write_claimed.lua,
-- restore_shard.lua).
--
-- KEYS[1] cursors (hash)   KEYS[2] the mark of a rebuilding under way (string)
-- ARGV[1] the run's number: of two runs the later one has the higher number   ARGV[2] its mark, "<number>:<token>"
-- ARGV[3] the epoch in which the shard was closed when the run archived its outbox, '' where it was not closed
-- Reply: 1 claimed, 0 the shard has its cursors: it lives, 2 a later run has it, 3 it was closed since
local cursors = redis.call('HMGET', KEYS[1], 'epoch', 'stale')
if cursors[1] then return 0 end
local mark = redis.call('GET', KEYS[2])
if mark and mark ~= ARGV[2] and tonumber(string.match(mark, '^%d+') or '0') >= tonumber(ARGV[1]) then return 2 end
-- A gateway may close a shard at any moment: it went back, or JetStream has another message in an entry's place. The run drops the
-- outbox, and has archived only what it has seen closed. A closed shard changes no more: the same epoch is the same outbox.
if (cursors[2] or '') ~= ARGV[3] then return 3 end
-- First what takes no memory, and changes nothing: that Redis allows while it is full, and then the rest of the script, too. A
-- closed shard gives up what it has only once it is claimed.
redis.call('HDEL', KEYS[1], '')
redis.call('SET', KEYS[2], ARGV[2])
return 1
