-- Takes or renews the leases of several shards.
--
-- A lease with a longer time to live than anybody asks for was made before Redis' clock stepped back, perhaps by a
-- relay that is long dead: Redis expires keys by wall clock. Such a lease counts as free, and so does one that never
-- expires. If its holder is alive after all, its next renewal tells it.
--
-- A holder that cannot reach the stream leaves its lease to a gateway that can: its token then begins with '-'. It
-- keeps what nobody takes, because somebody has to close items. Every script that needs a lease compares the token, so
-- a holder that leaves its lease moves no cursor, and another gateway may take the lease between any two scripts.
--
-- KEYS of each shard: lease (string), cursors (hash)
-- ARGV[1] token   ARGV[2] time to live in milliseconds
-- ARGV[3] 'keep'; 'leave': to a gateway that reaches the stream; 'take': also a lease that its holder leaves
-- Reply: see few.lua; 1 for each shard whose lease is somebody else's

---@include full
---@include few

local TOKEN, TTL_MS, HOLD = ARGV[1], ARGV[2], ARGV[3]
local LEFT = '-' .. TOKEN

local function lease(key)
  local lease_key, cursors_key = KEYS[key], KEYS[key + 1]
  local holder = redis.call('GET', lease_key)
  if holder and holder ~= TOKEN and holder ~= LEFT then
    local is_left = HOLD == 'take' and string.sub(holder, 1, 1) == '-'
    local left_ms = redis.call('PTTL', lease_key)
    if not is_left and left_ms >= 0 and left_ms <= tonumber(TTL_MS) then return 1 end
  end
  -- For each shard, though the first would do: it fails where the cursors are no hash, and such a shard nobody relays.
  write_though_full(cursors_key)
  redis.call('SET', lease_key, HOLD == 'leave' and LEFT or TOKEN, 'PX', TTL_MS)
end

return tell_of_few(2, 3, 0, lease)
