-- A relay's turn at several shards: moves their `published` cursors up, for the holder of the lease only, and reads the entries
-- that come next, and whose they are. Each shard is one atomic step; one that fails changes nothing for the others.
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
-- Where the cursor may not move, nothing is read either: what the relay knows of that shard is stale.
--
-- KEYS of each shard: lease, cursors (hash), outbox (stream)
-- ARGV[1] token   ARGV[2] identity of the JetStream stream   ARGV[3] how many entries of a shard to read at most
-- ARGV[4..] six for each shard:
--           shard epoch   run of Redis   n: this entry and all before it have a PubAck ('' = the cursor stays)
--           highest stream sequence acknowledged   the entry after which the relay has read those
--           the number after which to read ('' = nothing is read)
-- Reply of each shard: { moved, run, epoch, entries as XRANGE tells them }, with moved
--        1 moved or already there, or it was to stay
--        0 lease, epoch or run no longer ours, another stream, or the cursor is before the entries that were read
--        The epoch is false where the shard has none. The reply is the error with which the step failed, if it did.

---@include full

local TOKEN, STREAM_ID, MOST = ARGV[1], ARGV[2], ARGV[3]
local SHARD_KEYS, FIRST_SHARD, SHARD_ARGUMENTS = 3, 4, 6
local has_written = false

-- Whether the cursor is now at entry `n`, or was further.
local function advance(lease_key, cursors_key, cursors, epoch, run, n, stream_seq, read_after)
  if redis.call('GET', lease_key) ~= TOKEN then return false end
  local its_epoch, its_run, published, stream_id = unpack(cursors)
  if its_epoch ~= epoch or (its_run or '') ~= run then return false end
  if stream_id and stream_id ~= '' and stream_id ~= STREAM_ID then return false end
  if tonumber(published) < tonumber(read_after) then return false end
  if tonumber(n) <= tonumber(published) then return true end
  if not has_written then
    write_though_full(cursors_key)
    has_written = true
  end
  redis.call('HSET', cursors_key, 'published', n, 'stream_id', STREAM_ID, 'stream_seq', stream_seq)
  return true
end

local function turn(lease_key, cursors_key, outbox_key, epoch, run, n, stream_seq, read_after, after)
  local cursors = redis.call('HMGET', cursors_key, 'epoch', 'run', 'published', 'stream_id')
  local moved, entries = 1, {}
  if n ~= '' and not advance(lease_key, cursors_key, cursors, epoch, run, n, stream_seq, read_after) then
    moved = 0
  elseif after ~= '' then
    entries = redis.call('XRANGE', outbox_key, '(' .. after .. '-0', '+', 'COUNT', MOST)
  end
  return { moved, cursors[2], cursors[1], entries }
end

local replies, keys_before = {}, 0
for at = FIRST_SHARD, #ARGV, SHARD_ARGUMENTS do
  local lease_key, cursors_key, outbox_key = unpack(KEYS, keys_before + 1, keys_before + SHARD_KEYS)
  local ok, reply = pcall(turn, lease_key, cursors_key, outbox_key, unpack(ARGV, at, at + SHARD_ARGUMENTS - 1))
  if not ok then
    if type(reply) ~= 'table' then reply = { err = 'ERR ' .. tostring(reply) } end
    reply = { err = reply.err }
  end
  replies[#replies + 1] = reply
  keys_before = keys_before + SHARD_KEYS
end
return replies
