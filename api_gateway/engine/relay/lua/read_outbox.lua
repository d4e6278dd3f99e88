-- The next entries of a shard, and whose they are.
--
-- KEYS[1] outbox (stream), KEYS[2] cursors (hash)
-- ARGV[1] the number after which to read   ARGV[2] how many entries at most
-- Reply   run, epoch, entries as XRANGE tells them; run or epoch is nil where the shard has none
local whose = redis.call('HMGET', KEYS[2], 'run', 'epoch')
return {whose[1], whose[2], redis.call('XRANGE', KEYS[1], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])}
