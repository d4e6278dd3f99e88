-- Gives a lease back, if it is still ours, also one that we leave to others (lease.lua). Works at `maxmemory`: DEL takes none.
--
-- KEYS[1] lease (string)   ARGV[1] token   Reply: 1 given back, 0 somebody else's
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] and holder ~= '-' .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
