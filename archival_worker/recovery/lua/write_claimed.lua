-- Carries out commands on a shard that is being rebuilt, if the run that sends them has claimed the shard.
--
-- KEYS[1] the mark of a rebuilding under way (string)   KEYS[2..] the key of each command, in order
-- ARGV[1] the run's mark   then for each command: its name, the number of arguments after its key, and these
-- Reply: 1 done, 0 the mark is another one: nothing was done
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
-- The mark never expires, so this changes nothing. But Redis allows this write while it is full, and then the others, too. A
-- rebuilt shard takes no more memory than before it was lost.
redis.call('PERSIST', KEYS[1])
local at = 2
for number = 2, #KEYS do
  local count = tonumber(ARGV[at + 1])
  redis.call(ARGV[at], KEYS[number], unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
return 1
