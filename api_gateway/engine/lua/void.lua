-- Strikes an accepted bid: the item becomes what its other accepted bids make it. The rule is shared/domain/voiding.py.
--
-- The remaining bids are counted again, from the item's log of accepted bids. Where the log does not reach back to the
-- first bid, the caller has counted the bids up to a position, from the archive. The script counts on from there and
-- writes in the same step. So it succeeds however fast others bid, as long as that position is still in the log.
--
-- lib/item.lua, lib/bidding.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3].
-- ARGV[4] the reason, ARGV[5] who, both as JSON strings   ARGV[6] bid id
-- ARGV[7] the position up to which the caller has counted ('' = it has not; then the rest is missing)
-- ARGV[8] how many voids of the item the caller knows
-- ARGV[9..14] the result of the bids up to there without the struck ones and this one: price, leader ('' = nobody), the
--             leader's maximum, runner-up, count, reserve met (0 or 1)
-- ARGV[15] whether a row that stands has that price (0 or 1)   ARGV[16] the highest row up to it that stands ('' = none)
-- ARGV[17..20] the bid: its seq, bidder, limit, and the price that it showed ('' = none)
-- ARGV[21] before which seq its automatic bids come from its maximum ('0' = none do, '' = not known up to the position)
-- ARGV[22] the newest maximum of its bidder without it ('' = none)
-- ARGV[23] the lowest row up to the position that stands above that price ('' = none)
-- ARGV[24] the epoch of the item of which the caller has counted   ARGV[25] the id of the bid at the position ('' = not known)
-- Reply: { 0, n } with n the outbox entry, { 4, status } where the state does not allow it, { 5 } the log or the voids went on,
--        or they are not those that were counted: count again, { 6 } the log does not reach back to the first bid: count first,
--        { 7 } no such bid was accepted, { 8 } it is struck already, { 9, user, currency, missing } without the bid this user would
--        lead, and the shard lacks so much of their spending limit for that.

if status == 'cancelled' then return { 4, status } end
-- A void between the end and the close would promote the next bidder, to whom the close would then sell.
if status == 'open' and end_us and now >= end_us then return { 4, 'closing' } end
local reason, actor, target = ARGV[4], ARGV[5], ARGV[6]
-- What the caller has counted; false where it has not.
local counted = ARGV[7] ~= '' and {
  position = tonumber(ARGV[7]), voids = tonumber(ARGV[8]), epoch = ARGV[24], bid_at_position = ARGV[25],
  price = tonumber(ARGV[9]), leader = ARGV[10], leader_max = tonumber(ARGV[11]), runner_up = tonumber(ARGV[12]),
  bid_count = tonumber(ARGV[13]), reserve_met = ARGV[14] == '1', is_shown = ARGV[15] == '1',
  highest_row = tonumber(ARGV[16]), row_above = tonumber(ARGV[23]),
  seq = tonumber(ARGV[17]), bidder = ARGV[18], limit = tonumber(ARGV[19]), row = tonumber(ARGV[20]),
  until_seq = tonumber(ARGV[21]), maximum = tonumber(ARGV[22]),
}
local from = counted and counted.position or 0
local is_final = status == 'sold' or status == 'unsold'

local ENTRY = '^(%d+)|(%d+)|([^|]*)|([^|]*)|(%d*)|(%d*)|(%a)|(%d*)|(%d*)|([^|]*)|(%d)(%d)(%d)$'
local entries, struck = {}, nil
local lines = redis.call('LRANGE', accepted_key, 0, -1)
-- The first position that the log has for certain. An `a` line (an automatic bid after a void) has the position of the
-- bid before it, which may be gone.
local first = accepted_count + 1
if lines[1] then
  local position, kind = string.match(lines[1], '^(%d+)|%d+|[^|]*|[^|]*|%d*|%d*|(%a)')
  first = tonumber(position) + (kind == 'a' and 1 or 0)
end
if not counted then
  if first > 1 then return { 6 } end
elseif voids ~= counted.voids or first > from + 1 or epoch ~= counted.epoch or from > accepted_count then
  -- The log is shorter than what was counted: a replica took over, or the item was rebuilt.
  return { 5 }
end
for index, line in ipairs(lines) do
  local e = {}
  local position, at, amount, maximum, row, answer_amount, is_struck, row_stands, answer_stands
  position, at, e.bid_id, e.user, amount, maximum, e.kind, row, answer_amount, e.by, is_struck, row_stands, answer_stands =
    string.match(line, ENTRY)
  e.position, e.seq, e.amount, e.maximum = tonumber(position), tonumber(at), tonumber(amount), tonumber(maximum)
  e.row, e.answer = tonumber(row), tonumber(answer_amount)
  e.is_struck, e.row_stands, e.answer_stands = is_struck == '1', row_stands == '1', answer_stands == '1'
  e.line, e.limit = line, e.maximum or e.amount
  entries[index] = e
  if e.bid_id == target and e.kind ~= 'a' then struck = e end
  if counted and e.position == from and e.kind ~= 'a' and e.bid_id ~= counted.bid_at_position
    and counted.bid_at_position ~= '' then return { 5 } end
end

if not counted and not struck then return { 7 } end
if struck and struck.is_struck then return { 8 } end

-- 1. What is struck, and until when automatic bids came from its maximum.
local until_seq
if not counted then
  until_seq = seq + 1
else
  until_seq = counted.until_seq or seq + 1
  struck = struck or { bid_id = target, position = 0 }
  struck.seq, struck.user, struck.limit, struck.row = counted.seq, counted.bidder, counted.limit, counted.row
end
if not counted or not counted.until_seq then
  for _, e in ipairs(entries) do
    if e.position > from and e ~= struck and e.kind ~= 'a' and not e.is_struck and e.user == struck.user
      and e.limit >= struck.limit then
      until_seq = e.position < struck.position and 0 or e.seq + 1
      break
    end
  end
end
struck.is_struck, struck.row_stands, struck.answer_stands = true, false, false
for _, e in ipairs(entries) do
  if e.kind == 'a' then
    if e.user == struck.user and e.seq > struck.seq and e.seq < until_seq then e.row_stands = false end
  elseif e.by == struck.user and e.seq + 1 > struck.seq and e.seq + 1 < until_seq then
    e.answer_stands = false
  end
end

-- 2. Count in the remaining bids, in their order. No event is sequenced meanwhile.
local before, count_before = price, bid_count
local led_before, led_with_before = leader, leader_max
local is_shown, highest, maximum = true, nil, nil
if not counted then
  price, leader, leader_max, runner_up, bid_count, reserve_met = start_price, '', 0, 0, 0, not reserve_price
else
  price, leader, leader_max, runner_up = counted.price, counted.leader, counted.leader_max, counted.runner_up
  bid_count, reserve_met, is_shown = counted.bid_count, counted.reserve_met, counted.is_shown
  highest, maximum = counted.highest_row, counted.maximum
end
local last = {}
placed = function(_, user, kind, amount) last = { user = user, kind = kind, amount = amount } end
soft_close = function() end
for _, e in ipairs(entries) do
  if e.position > from then
    if e.kind == 'a' then
      is_shown = is_shown or (e.row_stands and e.row == price and e.user == leader)
    elseif not e.is_struck then
      local was, was_first = price, leader == ''
      if e.kind == 'n' then
        take(e.user)
        last = { user = e.user, kind = 'buy_now', amount = price }
      else
        count_in(e.user, e.amount, e.limit, e.bid_id)
        if e.user == struck.user and e.maximum then maximum = e.maximum end
      end
      if price > was or was_first then
        if last.kind == 'proxy' then
          is_shown = e.answer_stands and e.answer == last.amount and e.by == last.user
        else
          is_shown = e.row_stands and e.row == last.amount
        end
      end
    end
  end
end

-- A lead that comes back needs credit, like one that is bid for: its bidder was given back what it took, and a bid that was beaten
-- at once never took any. The caller finds the credit and asks again; it is taken in the step that strikes the bid.
if not is_final and leader ~= '' and (leader ~= led_before or leader_max > led_with_before) then
  local missing = missing_for(leader, leader_max)
  if missing > 0 then return { 9, leader, currency, F:format(missing) } end
end

-- 3. The event, and where no row has the new price, the leader's maximum bids anew.
local remains = price
if not is_shown and not is_final and leader ~= '' then
  -- Bids after the position have lifted the price over a row that the caller left out of its highest one.
  if counted and counted.row_above and counted.row_above <= remains then return { 5 } end
  price = highest or start_price
  for _, e in ipairs(entries) do
    if e.row_stands and e.row <= remains then price = math.max(price, e.row) end
    if e.answer_stands and e.answer <= remains then price = math.max(price, e.answer) end
  end
end
local current = price
local offered = 'null'
if is_final then
  -- Nobody is promoted after the close: who would have won is offered the item.
  if leader ~= '' and reserve_met then offered = '"' .. leader .. '"' end
  status, leader, leader_max = 'unsold', '', 0
end
event('voided', string.format('"bid_id":"%s","voided_seq":%d,"bidder_id":"%s","amount":%s,"automatic_until":%s,'
    .. '"previous_bid":%d,"previous_bid_count":%d,"offered_to":%s,"reason":%s,"by":%s,',
  target, struck.seq, struck.user, struck.row and F:format(struck.row) or 'null',
  until_seq > 0 and F:format(until_seq) or 'null', before, count_before, offered, reason, actor))
local anew
if not is_shown and not is_final and leader ~= '' then
  price = remains
  event('bid', string.format('"bid_id":"%s/anew","user_id":"%s","kind":"proxy","amount":%d,"previous_bid":%d,',
    target, leader, price, current))
  anew = string.format('%d|%d|%s/anew|%s|%d||a|%d|||010', accepted_count, seq, target, leader, price, price)
end
seal(struck.user, '')

-- 4. What Redis keeps of it. The write that full memory refuses comes first, so that nothing is half done.
-- A bid that is older than the count by bidder may not be in it.
local counted = tonumber(redis.call('HGET', bidders_key, struck.user) or '0')
bids_counted = bids_counted - math.min(counted, 1)
local n = commit()
redis.call('HSET', item_key, 'voids', F:format(voids + 1))
-- A cache that kept the item hears of the void within a minute, and until then the item must be readable here
-- (evict.lua).
if is_final then redis.call('HSET', item_key, 'returned_us', F:format(now)) end
for index, e in ipairs(entries) do
  if e.row_stands and e.row > current then e.row_stands = false end
  if e.answer_stands and e.answer > current then e.answer_stands = false end
  local marks = string.format('%d%d%d', e.is_struck and 1 or 0, e.row_stands and 1 or 0, e.answer_stands and 1 or 0)
  if marks ~= string.sub(e.line, -3) then
    redis.call('LSET', accepted_key, index - 1, string.sub(e.line, 1, -4) .. marks)
  end
end
if anew and redis.call('RPUSH', accepted_key, anew) > ACCEPTED_KEPT then
  redis.call('LTRIM', accepted_key, -ACCEPTED_KEPT, -1)
end
if maximum then
  redis.call('HSET', proxies_key, struck.user, F:format(maximum))
else
  redis.call('HDEL', proxies_key, struck.user)
end
if counted > 1 then
  redis.call('HSET', bidders_key, struck.user, F:format(counted - 1))
else
  redis.call('HDEL', bidders_key, struck.user)
end
return { 0, n }
