-- Rules on a bidder for all items, or for all of a seller; or asks everybody for approval (shared/redis_layout/rulings.py). It
-- is decided here, in the bidder's home, and holds in this shard at once. The other shards get copies: until all have it, it
-- is among what is spread.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)   KEYS[3] rulings (hash)   KEYS[4] spreading (zset)
-- ARGV[1] outbox bound (entries of a shard)   ARGV[2] most rulings   ARGV[3] what the entry names instead of an item
-- ARGV[4] field   ARGV[5] user, or *   ARGV[6] seller, as a JSON string or null
-- ARGV[7] approve, unapprove, block or unblock   ARGV[8] the reason, ARGV[9] who, both as JSON strings
-- ARGV[10] '1': other shards have a copy of what this one lacks, so what takes it back has to come to them; else '0'
-- Reply: { 0, n, value } with n the outbox entry (0 = it was so already, and the value is '' where there is none),
--        { 2 } this shard has no cursors, { 3 } outbox at its bound, { 9 } too much is ruled already

local epoch, last_entry, archived_entry, marks = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'next', 'archived', 'rulings'))
if not epoch then return { 2 } end
if tonumber(last_entry) - tonumber(archived_entry) >= tonumber(ARGV[1]) then return { 3 } end
local field, ruling = ARGV[4], ARGV[7]

local before = redis.call('HGET', KEYS[3], field)
local flags = string.match(before or '', '^%a*')
local is_approved, is_blocked = string.find(flags, 'A', 1, true) ~= nil, string.find(flags, 'B', 1, true) ~= nil
if ruling == 'approve' then is_approved = true end
if ruling == 'unapprove' then is_approved = false end
if ruling == 'block' then is_blocked = true end
if ruling == 'unblock' then is_blocked = false end
local after = (is_approved and 'A' or '') .. (is_blocked and 'B' or '')
local is_elsewhere = not before and ARGV[10] == '1'
if after == flags and not is_elsewhere then return { 0, 0, before or '' } end
-- What is elsewhere is in the other shards' number already.
if not before and not is_elsewhere and redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[2]) then return { 9 } end

local time = redis.call('TIME')
local now = string.format('%d', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local told = string.format('[{"ts_us":%s,"item_id":null,"seller_id":%s,"user_id":"%s","ruling":"%s","approved":%s,"blocked":%s,'
    .. '"limit":null,"reason":%s,"by":%s}]',
  now, ARGV[6], ARGV[5], ruling, is_approved and 'true' or 'false', is_blocked and 'true' or 'false', ARGV[8], ARGV[9])
local n = string.format('%d', tonumber(last_entry) + 1)
local value = after .. '|' .. epoch .. '|' .. n
if field == '*' then
  marks = (is_approved and 'A' or '') .. 'L' .. string.match(marks or '', 'S?$')
elseif not string.find(marks or '', 'L', 1, true) then
  marks = string.match(marks or '', '^A?') .. 'L' .. string.match(marks or '', 'S?$')
end
-- First what full memory refuses. Then what says that copies are missing, so that nobody can forget them.
redis.call('XADD', KEYS[2], n .. '-0', 'item', ARGV[3], 'events', '[]', 'rulings', told)
redis.call('HSET', KEYS[1], 'next', n, 'rulings', marks)
redis.call('ZADD', KEYS[4], now, field)
redis.call('ZREM', KEYS[4], '!' .. field)
redis.call('HSET', KEYS[3], field, value)
return { 0, n, value }
