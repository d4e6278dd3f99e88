-- Takes or renews a lease.
--
-- KEYS[1] lease (string)   ARGV[1] token   ARGV[2] time to live in milliseconds   Reply: 1 ours, 0 somebody else's
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
