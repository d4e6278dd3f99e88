-- Moves the end of an item later, and its hard end by as much. What is added to a paused item is added to the time that is left.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3]. The rule is `extend` in shared/domain/lifecycle.py.
-- ARGV[4] the reason, ARGV[5] who, both as JSON strings
-- ARGV[6] the new end, or '' where ARGV[7] says by how much; both in microseconds
-- ARGV[8] by how much the end may be moved in all
-- ARGV[9] what was asked, "<request>:<content>" (shared/redis_layout/end_moves.py), or '' for nothing to compare with
-- ARGV[10] how many of these are kept
-- Reply: { 0, n } with n the outbox entry, 0 where this request was carried out before; { 4, status } where the state does not
--        allow it; { 5 } the item has no end; { 6 } it is paused, and ARGV[6] says no length; { 7 } the end would not be later;
--        { 8, moved } past the bound; { 9 } the request was another one before.

local moved_us, requests = unpack(redis.call('HMGET', item_key, 'moved_us', 'move_requests'))
moved_us, requests = tonumber(moved_us) or 0, requests or ''
local request = ARGV[9]
if request ~= '' then
  local content = string.match(' ' .. requests .. ' ', ' ' .. string.match(request, '^(%x+):') .. ':(%x+) ')
  if content then
    if content == string.match(request, ':(%x+)$') then return { 0, 0 } end
    return { 9 }
  end
end
if status == 'scheduled' and now >= start_us then status = 'open' end
if status == 'open' and end_us and now >= end_us then status = 'closed' end
if status ~= 'open' and status ~= 'scheduled' and status ~= 'paused' then return { 4, status } end
if not end_us then return { 5 } end
local by_us = tonumber(ARGV[7])
if not by_us then
  if status == 'paused' then return { 6 } end
  by_us = tonumber(ARGV[6]) - end_us
end
if by_us <= 0 then return { 7 } end
if moved_us + by_us > tonumber(ARGV[8]) then return { 8, F:format(moved_us) } end

local previous_us = end_us
end_us, hard_end_us, moved_us = end_us + by_us, hard_end_us and hard_end_us + by_us, moved_us + by_us
event('end_moved', string.format('"previous_end_us":%d,"original_end_us":%s,"extensions":%d,"reason":%s,"by":%s,"request":"%s",',
  previous_us, original_end_us ~= '' and original_end_us or F:format(previous_us), extensions, ARGV[4], ARGV[5], request))
local n = commit()
if request ~= '' then
  requests = requests == '' and request or request .. ' ' .. requests
  local kept = {}
  for each in string.gmatch(requests, '%S+') do
    if #kept == tonumber(ARGV[10]) then break end
    kept[#kept + 1] = each
  end
  requests = table.concat(kept, ' ')
end
redis.call('HSET', item_key, 'moved_us', F:format(moved_us), 'move_requests', requests)
local next_us
if status == 'scheduled' then next_us = start_us elseif status == 'open' then next_us = end_us end
reschedule(next_us)
return { 0, n }
