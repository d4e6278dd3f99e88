-- Withdraws an item, from any state before closed.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3]. The rule is `cancel` in shared/domain/lifecycle.py.
-- ARGV[4] the reason, ARGV[5] who, both as JSON strings
-- Reply: { 0, n } with n the outbox entry, or { 4, status } where the state does not allow it.

if status == 'open' and end_us and now >= end_us then status = 'closed' end
if status == 'closed' or status == 'sold' or status == 'unsold' or status == 'cancelled' then return { 4, status } end
status, paused_us = 'cancelled', nil
event('cancelled', string.format('"reason":%s,"by":%s,', ARGV[4], ARGV[5]))
local n = commit()
reschedule(nil)
return { 0, n }
