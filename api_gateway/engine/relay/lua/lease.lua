-- Takes or renews a lease.
--
-- A lease with a longer time to live than anybody asks for was made before Redis' clock stepped back, perhaps by a
-- relay that is long dead: Redis expires keys by wall clock. Such a lease counts as free, and so does one that never
-- expires. If its holder is alive after all, its next renewal tells it.
--
-- A holder that cannot reach the stream leaves its lease to a gateway that can: its token then begins with '-'. It
-- keeps what nobody takes, because somebody has to close items. Every script that needs a lease compares the token, so
-- a holder that leaves its lease moves no cursor, and another gateway may take the lease between any two scripts.
--
-- KEYS[1] lease (string)   KEYS[2] cursors of the shard (hash)   ARGV[1] token   ARGV[2] time to live in milliseconds
-- ARGV[3] 'keep'; 'leave': to a gateway that reaches the stream; 'take': also a lease that its holder leaves
-- Reply: 1 ours, 0 somebody else's

---@include full

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= '-' .. ARGV[1] then
  local is_left = ARGV[3] == 'take' and string.sub(holder, 1, 1) == '-'
  local left_ms = redis.call('PTTL', KEYS[1])
  if not is_left and left_ms >= 0 and left_ms <= tonumber(ARGV[2]) then return 0 end
end
write_though_full(KEYS[2])
redis.call('SET', KEYS[1], (ARGV[3] == 'leave' and '-' or '') .. ARGV[1], 'PX', ARGV[2])
return 1
