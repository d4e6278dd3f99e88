-- Takes or renews a lease.
--
-- A lease whose time to live is longer than anybody asks for was made before Redis' clock stepped back, by a relay that is
-- perhaps long dead: Redis ends keys by the clock on the wall. It counts as free, and so does one that would never end. If
-- its holder lives after all, it is told with its next renewal.
--
-- A holder that does not reach the stream leaves its lease to whoever does: '-' stands before its token then. It keeps what
-- nobody takes, because somebody has to close items. Everything that needs a lease compares the token, so one that is left
-- moves no cursor: whoever takes it in any moment does so between two scripts.
--
-- KEYS[1] lease (string)   KEYS[2] cursors of the shard (hash)   ARGV[1] token   ARGV[2] time to live in milliseconds
-- ARGV[3] 'keep'; 'leave': to whoever reaches the stream; 'take': also from one who leaves it
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
