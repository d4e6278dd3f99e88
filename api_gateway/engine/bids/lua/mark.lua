-- Writes a mark that replicas must receive, also at `maxmemory`: a replica that has it has everything that this Redis
-- wrote before.
--
-- KEYS[1] mark (string)   KEYS[2] cursors of the shard (hash)   ARGV[1] time to live in milliseconds   Reply: 1

---@include full

write_though_full(KEYS[2])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
