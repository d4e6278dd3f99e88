-- For scripts that must work while Redis is at `maxmemory`: those that make room, lead to it, or keep a shard safe.
-- This text replaces the line that includes it.
--
-- Redis (6.2 to 7.4, and Valkey) refuses a command that may take memory only as the first write of a script; a half-done
-- script would be worse than a full server. So the first write of these scripts is a command that takes none. Removing
-- a field that no hash has changes nothing, goes neither to disk nor to replicas, and counts as that first write.
--
-- Not for bids, nor for what creates items: they fill the memory, and are refused with a clean 503.
local function write_though_full(hash_key)
  redis.call('HDEL', hash_key, '')
end
