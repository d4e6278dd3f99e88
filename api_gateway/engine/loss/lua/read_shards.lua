-- The cursors of shards, and how many of their items are noted as lost.
--
-- KEYS of each shard: cursors (hash), lost items (set)
-- ARGV    the fields of the cursors
-- Reply of each shard: the values of these fields, false where there is none, and the number of lost items
local replies = {}
for at = 1, #KEYS, 2 do
  local reply = redis.call('HMGET', KEYS[at], unpack(ARGV))
  reply[#reply + 1] = redis.call('SCARD', KEYS[at + 1])
  replies[#replies + 1] = reply
end
return replies
