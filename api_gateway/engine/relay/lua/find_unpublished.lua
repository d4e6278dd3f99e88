-- Which shards have published something that the stream lacks.
--
-- KEYS    cursors of each shard (hash)   ARGV[1] identity of the JetStream stream   ARGV[2] its last sequence
-- Reply   see few.lua: 1 for each shard whose cursor `published` is about another stream or a later message, or whose
--         entries the archiver misses (`republish`)

---@include few

local STREAM_ID, LAST_SEQ = ARGV[1], tonumber(ARGV[2])

local function is_missed(cursors)
  local stream_id, stream_seq, republish = unpack(redis.call('HMGET', KEYS[cursors], 'stream_id', 'stream_seq', 'republish'))
  local is_of_another = (stream_id or '') ~= '' and stream_id ~= STREAM_ID
  if is_of_another or republish or (tonumber(stream_seq) or 0) > LAST_SEQ then return 1 end
end

return tell_of_few(1, 2, 0, is_missed)
