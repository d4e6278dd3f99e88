-- Takes away the mark that begin_credit.lua left: what the bidder led with is counted. A mark that came later stays: the shard was
-- rebuilt meanwhile.
--
-- KEYS[1] credit (hash)   ARGV[1] user and currency   ARGV[2] the mark   Reply: 1 taken away   0 it is another one, or none
if redis.call('HGET', KEYS[1], 'c:' .. ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], 'c:' .. ARGV[1])
