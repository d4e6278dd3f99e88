-- Which shards are not as the relay knows them: they have entries that it has not published, or another lineage, or are lost.
-- It asks this again and again of all its shards, because a hint may be lost, and nearly always there is nothing.
--
-- `next` is the last entry of the outbox: each script that writes an entry moves it in the same step.
--
-- KEYS    cursors of each shard (hash)   ARGV of each: epoch, run of Redis and last published entry, with spaces between
-- Reply   see few.lua: 1 for each such shard

---@include few

local function differs(cursors, known)
  local epoch, run, last = unpack(redis.call('HMGET', KEYS[cursors], 'epoch', 'run', 'next'))
  if not epoch or epoch .. ' ' .. (run or '') .. ' ' .. (last or '') ~= ARGV[known] then return 1 end
end

return tell_of_few(1, 0, 1, differs)
