-- Opens an item at its start and closes it at its end. The closer calls it. A call that comes early, late, twice or
-- from two places is harmless, because this script decides what is due, by Redis TIME. A bid and the close are two
-- steps in one slot, so no bid has a sequence number after `closed`.
--
-- It works at `maxmemory`: an item that ends is archived and then leaves Redis, and no bidder is promised an end that
-- does not come.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3]. The rule is `advance` in shared/domain/lifecycle.py.
-- Reply: { 0, n, next } with n the outbox entry written (0 = nothing was due) and next the microsecond of the item's next
--        transition ('' = none).

---@include full

write_though_full(cursors_key)
if status == 'scheduled' and now >= start_us then
  status = 'open'
  event('opened', '')
end
if status == 'open' and end_us and now >= end_us then
  local sold = leader ~= '' and reserve_met
  status = sold and 'sold' or 'unsold'
  event('closed', string.format('"winner_id":%s,', sold and '"' .. leader .. '"' or 'null'))
end
local next_us
if status == 'scheduled' then next_us = start_us elseif status == 'open' then next_us = end_us end
local n = #events > 0 and commit() or 0
reschedule(next_us)
return { 0, n, next_us and F:format(next_us) or '' }
