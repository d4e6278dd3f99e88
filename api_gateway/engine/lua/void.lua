-- Strikes a bid. The caller has worked out what remains from the whole history (shared/domain/voiding.py), which this script
-- cannot read; so it applies that only if no event came in between.
--
-- lib/item.lua comes first: KEYS[1..7], ARGV[1..3].
-- ARGV[4] the reason, ARGV[5] who, both as JSON strings
-- ARGV[6] the seq up to which the caller knows the history
-- ARGV[7] bid id   ARGV[8] its seq   ARGV[9] its bidder
-- ARGV[10] the price that remains   ARGV[11] who leads then ('' = nobody)   ARGV[12] the runner-up's height
-- ARGV[13] by how much the number of people's bids falls
-- Reply: { 0, n } with n the outbox entry, { 4, status } where the state does not allow it, { 5 } the history moved on.

if status == 'cancelled' then return { 4, status } end
-- Between the end and the close, the next bidder would be promoted and then sold to.
if status == 'open' and end_us and now >= end_us then return { 4, 'closing' } end
if seq ~= tonumber(ARGV[6]) then return { 5 } end
local struck, next_leader = ARGV[9], ARGV[11]
local offered = 'null'
redis.call('HDEL', proxies_key, struck)
price, runner_up, bid_count = tonumber(ARGV[10]), tonumber(ARGV[12]), bid_count - tonumber(ARGV[13])
-- A bid from before bids were counted by bidder may not be among them.
local counted = tonumber(redis.call('HGET', bidders_key, struck) or '0')
local uncounted = math.min(counted, tonumber(ARGV[13]))
bids_counted = bids_counted - uncounted
if counted > uncounted then
  redis.call('HSET', bidders_key, struck, F:format(counted - uncounted))
else
  redis.call('HDEL', bidders_key, struck)
end
if status == 'sold' or status == 'unsold' then
  -- Nobody is promoted after the close: the next bidder is offered the item at the height of their own bid.
  if next_leader ~= '' then offered = '"' .. next_leader .. '"' end
  status, next_leader = 'unsold', ''
end
leader = next_leader
leader_max = 0
if leader ~= '' then
  leader_max = math.max(price, tonumber(redis.call('HGET', proxies_key, leader) or '0'))
end
reserve_met = not reserve_price or (leader ~= '' and price >= reserve_price)
event('voided', string.format('"bid_id":"%s","voided_seq":%s,"offered_to":%s,"reason":%s,"by":%s,',
  ARGV[7], ARGV[8], offered, ARGV[4], ARGV[5]))
seal(struck, '')
return { 0, commit() }
