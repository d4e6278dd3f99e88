-- Marks a shard: this run of Redis has everything of it that is known elsewhere. From then on a gateway that cannot ask
-- elsewhere trusts this run. A copy of the data has the mark too, but another run id.
--
-- KEYS[1] cursors (hash)   ARGV[1] run of Redis   ARGV[2], ARGV[3] epoch and n up to which it was looked at
-- ARGV[4] a text that nobody else uses: it is the shard's admission, if this run was not admitted before
-- Reply: 1 written, 0 the shard is closed, lost, or behind what was looked at

---@include full

local cursors = redis.call('HMGET', KEYS[1], 'epoch', 'next')
if not cursors[1] then return 0 end
local epoch, known_epoch = tonumber(cursors[1]), tonumber(ARGV[2])
if epoch < known_epoch or (epoch == known_epoch and tonumber(cursors[2]) < tonumber(ARGV[3])) then return 0 end
write_though_full(KEYS[1])
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
  -- What the shard and an account knew of each other's credit may be older than what they have told: nothing of it is
  -- used until they have asked each other (shared/redis_layout/accounts.py).
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'admission', ARGV[4])
end
return 1
