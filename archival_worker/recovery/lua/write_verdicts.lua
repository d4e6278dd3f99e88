-- Puts verdicts into hashes of a shard that is being rebuilt, each into the first of its fields that is free, if the run that
-- sends them has claimed the shard.
--
-- KEYS[1] the mark of a rebuilding under way (string)   KEYS[2..] the hash of each verdict, in order
-- ARGV[1] the run's mark   then for each verdict: the number of its possible fields, these, and the verdict
-- Reply: 1 done, 0 the mark is another one: nothing was done
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
-- The mark never expires, so this changes nothing. But Redis allows this write while it is full, and then the others, too. A
-- rebuilt shard takes no more memory than before it was lost.
redis.call('PERSIST', KEYS[1])
local at = 2
for number = 2, #KEYS do
  local count = tonumber(ARGV[at])
  local verdict = ARGV[at + count + 1]
  for field = at + 1, at + count do
    if redis.call('HSETNX', KEYS[number], ARGV[field], verdict) == 1 then break end
  end
  at = at + count + 2
end
return 1
