-- Brings a ruling that was made in another shard to this one, unless this one has it, or a later one on the same.
--
-- KEYS[1] cursors (hash)   KEYS[2] rulings (hash)   ARGV[1] field   ARGV[2] value, with the epoch and entry of its home
-- ARGV[3] '1': it is one that was taken back long ago, and is to be forgotten, else '0'
-- Reply: 1 this shard has it, or a later one   2 the shard is lost or closed
local epoch, marks = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'rulings'))
if not epoch then return 2 end
local field, value = ARGV[1], ARGV[2]
local known = redis.call('HGET', KEYS[2], field)
if ARGV[3] == '1' then
  if known == value then redis.call('HDEL', KEYS[2], field) end
  return 1
end
local flags, value_epoch, n = string.match(value, '^(%a*)|(%d+)|(%d+)$')
if known then
  local known_epoch, known_n = string.match(known, '^%a*|(%d+)|(%d+)$')
  known_epoch, known_n, value_epoch, n = tonumber(known_epoch), tonumber(known_n), tonumber(value_epoch), tonumber(n)
  if known_epoch > value_epoch or (known_epoch == value_epoch and known_n >= n) then return 1 end
end
if field == '*' then
  marks = (flags == 'A' and 'A' or '') .. 'L' .. string.match(marks or '', 'S?$')
elseif not string.find(marks or '', 'L', 1, true) then
  marks = string.match(marks or '', '^A?') .. 'L' .. string.match(marks or '', 'S?$')
end
-- The ruling first: where memory is full, this is refused, and nothing is half done.
redis.call('HSET', KEYS[2], field, value)
redis.call('HSET', KEYS[1], 'rulings', marks)
return 1
