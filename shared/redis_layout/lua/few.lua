-- For scripts that are asked about many shards again and again, and of most have nothing to tell. A shard that fails changes
-- nothing for the others.
-- This text replaces the line that includes it.
--
-- `one` is called for each shard, with the places of its first key and of its first argument; it returns nil where there is
-- nothing to tell. `common` is how many arguments stand before those of the shards.
-- Returns what the script replies: the number of a shard, from 1, and what is told of it or its error, for each such shard.
local function tell_of_few(keys_each, common, arguments_each, one)
  local told, shard, argument = {}, 0, common + 1
  for key = 1, #KEYS, keys_each do
    shard = shard + 1
    local ok, reply = pcall(one, key, argument)
    if not ok then
      if type(reply) ~= 'table' then reply = { err = 'ERR ' .. tostring(reply) } end
      reply = { err = reply.err }
    end
    if reply then
      told[#told + 1] = shard
      told[#told + 1] = reply
    end
    argument = argument + arguments_each
  end
  return told
end
