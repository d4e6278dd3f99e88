-- Resumes a paused item: its end and its hard end move by the length of the pause.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3]. The rule is `resume` in shared/domain/lifecycle.py.
-- ARGV[4] the reason, ARGV[5] who, both as JSON strings
-- Reply: { 0, n } with n the outbox entry, or { 4, status } where the state does not allow it.

if status ~= 'paused' then
  if status == 'open' and end_us and now >= end_us then status = 'closed' end
  return { 4, status }
end
local shift = now - paused_us
status, paused_us = 'open', nil
end_us = end_us and end_us + shift
hard_end_us = hard_end_us and hard_end_us + shift
event('resumed', string.format('"reason":%s,"by":%s,', ARGV[4], ARGV[5]))
local n = commit()
reschedule(end_us)
return { 0, n }
