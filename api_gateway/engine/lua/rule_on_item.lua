-- Rules on a bidder of one item: approves, blocks, sets a limit, or takes one of these back. The bids after it in the item's
-- order are decided by it; bids that were accepted stand.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3].
-- ARGV[4] user   ARGV[5] approve, unapprove, block, unblock, limit or unlimit   ARGV[6] the limit in minor units ('' = none)
-- ARGV[7] the reason, ARGV[8] who, both as JSON strings   ARGV[9] most bidders on whom something may be ruled
-- Reply: { 0, n, value } with n the outbox entry (0 = it was so already) and the value as in shared/redis_layout/rulings.py,
--        { 4, status } where the state does not allow it, or { 9 } where too much is ruled already.

if status == 'open' and end_us and now >= end_us then status = 'closed' end
if status == 'closed' or status == 'sold' or status == 'unsold' or status == 'cancelled' then return { 4, status } end
local user, ruling, most = ARGV[4], ARGV[5], tonumber(ARGV[9])
local rulings_key = string.match(item_key, '^{[^}]*}:') .. 'rulings:' .. item_id

local before = redis.call('HGET', rulings_key, user) or '|'
local flags, limit = string.match(before, '^(%a*)|(%d*)$')
local is_approved, is_blocked = string.find(flags, 'A', 1, true) ~= nil, string.find(flags, 'B', 1, true) ~= nil
if ruling == 'approve' then is_approved = true end
if ruling == 'unapprove' then is_approved = false end
if ruling == 'block' then is_blocked = true end
if ruling == 'unblock' then is_blocked = false end
if ruling == 'limit' or ruling == 'unlimit' then limit = ARGV[6] end
local after = (is_approved and 'A' or '') .. (is_blocked and 'B' or '') .. '|' .. limit
if after == before then return { 0, 0, after } end
if before == '|' and redis.call('HLEN', rulings_key) >= most then return { 9 } end

local told = string.format('[{"ts_us":%d,"item_id":"%s","seller_id":null,"user_id":"%s","ruling":"%s","approved":%s,'
    .. '"blocked":%s,"limit":%s,"reason":%s,"by":%s}]',
  now, item_id, user, ruling, is_approved and 'true' or 'false', is_blocked and 'true' or 'false',
  limit == '' and 'null' or limit, ARGV[7], ARGV[8])
local n = last_entry + 1
-- First what full memory refuses, as in lib/item.lua. The mark comes before the ruling: a mark alone does no harm.
redis.call('XADD', outbox_key, F:format(n) .. '-0', 'item', item_id, 'events', '[]', 'rulings', told)
redis.call('HSET', cursors_key, 'next', F:format(n))
local marks = string.find(item_rulings or '', 'A', 1, true) and 'A' or ''
if after == '|' then
  redis.call('HDEL', rulings_key, user)
  if redis.call('EXISTS', rulings_key) == 0 then redis.call('HSET', item_key, 'rulings', marks) end
else
  redis.call('HSET', item_key, 'rulings', marks .. 'L')
  redis.call('HSET', rulings_key, user, after)
end
return { 0, n, after }
