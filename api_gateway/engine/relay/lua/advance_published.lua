-- Moves the `published` cursor of a shard up, for the holder of the lease only.
--
-- A relay that was stopped past its lease and wakes up may have published entries a second time; that is harmless (they
-- carry the same Nats-Msg-Id). Its stale knowledge must not move the cursor, so this checks the lease in the same step.
-- Nor may the cursor move when the entries are not those that the relay has read: in another epoch, or in another run
-- of Redis, which may lack them and give their numbers to others:
--   1. The relay reads entry 58 and publishes it. Redis fails over to a replica that has 57, and the lease.
--   2. The replica gives 58 to another bid.
--   3. The PubAck of the first 58 arrives. If it moved the cursor, the second 58 would never be published.
-- Nor may it move when the stream is another one than the cursor names: this one lacks what that one had. The relay
-- must go back first (rewind_published.lua). A relay that did not, because it has just taken the shard or because Redis
-- went away meanwhile, is stopped here. Nor may it skip entries between itself and those that the relay has read:
--   1. Relay A has published 50 entries, and loses Redis for longer than its lease. 2. The stream is lost. Relay B goes back to
--   what is archived, and dies. 3. A has its lease again, and publishes entry 51: the 50 are in no stream.
--
-- KEYS[1] lease   KEYS[2] cursors (hash)
-- ARGV[1] token   ARGV[2] shard epoch   ARGV[3] n: this entry and all before it have a PubAck
-- ARGV[4] identity of the JetStream stream   ARGV[5] highest stream sequence acknowledged   ARGV[6] run of Redis
-- ARGV[7] the entry after which the relay has read
-- Reply: 1 moved or already there, 0 lease, epoch or run no longer ours, another stream, or the cursor is before ARGV[7]

---@include full

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local cursors = redis.call('HMGET', KEYS[2], 'epoch', 'published', 'stream_id', 'run')
if cursors[1] ~= ARGV[2] or (cursors[4] or '') ~= ARGV[6] then return 0 end
if cursors[3] and cursors[3] ~= '' and cursors[3] ~= ARGV[4] then return 0 end
if tonumber(cursors[2]) < tonumber(ARGV[7]) then return 0 end
if tonumber(ARGV[3]) > tonumber(cursors[2]) then
  write_though_full(KEYS[2])
  redis.call('HSET', KEYS[2], 'published', ARGV[3], 'stream_id', ARGV[4], 'stream_seq', ARGV[5])
end
return 1
