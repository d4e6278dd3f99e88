-- Stops the bidding on an open item and keeps its remaining time.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3]. The rule is `pause` in shared/domain/lifecycle.py.
-- ARGV[4] the reason, ARGV[5] who, both as JSON strings
-- Reply: { 0, n } with n the outbox entry, or { 4, status } where the state does not allow it.

if status == 'scheduled' and now >= start_us then status = 'open' end
if status == 'open' and end_us and now >= end_us then status = 'closed' end
if status ~= 'open' then return { 4, status } end
status, paused_us = 'paused', now
event('paused', string.format('"reason":%s,"by":%s,', ARGV[4], ARGV[5]))
local n = commit()
reschedule(nil)
return { 0, n }
