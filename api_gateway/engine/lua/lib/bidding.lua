-- How one bid is decided: the rule of shared/domain/bidding.py, next to the data. It comes after lib/item.lua, and
-- reads and changes the item's state, which lib/item.lua has in locals. Only `remember` writes.

local proxies, bidders, end_moved
-- Whether anything was ruled that may concern the bidders of this item.
local is_ruled

-- The accepted bids of this call, for the item's log (shared/redis_layout/accepted_log.py). Then, of the bid that is
-- being decided: the price that it set and its seq, the automatic bid that answered it, and whose that is.
local logged
local shown, shown_seq, answer, answered_by

-- To be called before the first bid on an item.
local function begin_bids()
  proxies, bidders, end_moved, logged = {}, {}, false, {}
  is_ruled = (item_rulings or '') ~= '' or (house_rulings or '') ~= ''
end

local function placed(bid_id, user, kind, amount, previous)
  if kind == 'proxy' then
    answer, answered_by = amount, user
  else
    shown, shown_seq = amount, seq + 1
  end
  event('bid', '"bid_id":"' .. bid_id .. '","user_id":"' .. user .. '","kind":"' .. kind .. '","amount":' .. text[amount]
    .. ',"previous_bid":' .. text[previous] .. ',')
end

local function accepted(mark, bid_id, at_seq, yours, leads, kind)
  return mark .. '|' .. bid_id .. '|' .. text[at_seq] .. '|' .. text[price] .. '|' .. text[yours] .. (leads and '|1|' or '|0|')
    .. text[minimum()] .. (reserve_met and '|1|' or '|0|') .. kind .. '|' .. epoch .. '|' .. text[now]
end

local function refused(code, user)
  return 'R|' .. code .. '|' .. text[price] .. (user == leader and '|1|' or '|0|') .. text[minimum()]
    .. (reserve_met and '|1' or '|0')
end

-- A maximum that reaches an unmet reserve shows the reserve; one below it is shown in full.
local function lifted(to, maximum)
  if not reserve_price or reserve_met then return to end
  return math.max(to, math.min(maximum, reserve_price))
end

local function soft_close()
  local trigger, extend = tonumber(soft_trigger_us), tonumber(soft_extend_us)
  if not end_us or not trigger or end_us - now >= trigger then return end
  local max_count = tonumber(soft_max_count)
  if max_count > 0 and extensions >= max_count then return end
  local new_end = (soft_mode == 'from_bid' and now or end_us) + extend
  if hard_end_us then new_end = math.min(new_end, hard_end_us) end
  if new_end <= end_us then return end
  local previous = end_us
  end_us, extensions, end_moved = new_end, extensions + 1, true
  event('extended', string.format('"previous_end_us":%d,"original_end_us":%s,"extensions":%d,',
    previous, original_end_us, extensions))
end

-- The bidder leads at `to`, or at the reserve where the maximum reaches it.
local function lead(bid_id, user, limit, to)
  local maximum = user == leader and math.max(limit, leader_max) or limit
  local previous = price
  price = math.max(price, lifted(to, maximum))
  leader, leader_max = user, maximum
  bid_count = bid_count + 1
  if reserve_price and price >= reserve_price then reserve_met = true end
  placed(bid_id, user, 'bid', price, previous)
  -- Read before the soft close adds its event: a bid's answer has the sequence number of the bid.
  local at_seq = seq
  soft_close()
  return accepted('A', bid_id, at_seq, price, true, 'bid')
end

-- The bidder leads at the buy-now price.
local function take(user)
  if user ~= leader then runner_up = leader_max end
  price = math.max(price, buy_now_price)
  leader, leader_max, reserve_met = user, price, true
  bid_count = bid_count + 1
end

local function buy_now(bid_id, user)
  local previous = price
  take(user)
  status = 'sold'
  placed(bid_id, user, 'buy_now', price, previous)
  local at_seq = seq
  event('closed', string.format('"winner_id":"%s",', user))
  return accepted('A', bid_id, at_seq, price, true, 'buy_now')
end

local function against_leader(bid_id, user, amount, limit)
  local standing = leader_max
  if limit > standing then
    runner_up = standing
    return lead(bid_id, user, limit, math.max(math.min(standing + increment(standing), limit), amount or 0))
  end
  if limit <= price then
    -- Only when a void counts it again (void.lua): now it shows nothing, but it was placed.
    runner_up, bid_count = math.max(runner_up, limit), bid_count + 1
    return accepted('A', bid_id, seq, limit, false, 'bid')
  end
  -- The standing maximum beats the newcomer at once: the bid counts at its full height, then the maximum answers.
  -- On a tie the earlier maximum leads at that very amount, without an answer.
  local previous = price
  price, runner_up = limit, limit
  bid_count = bid_count + 1
  placed(bid_id, user, 'bid', limit, previous)
  local at_seq = seq
  if limit < standing then
    price = math.min(limit + increment(limit), standing)
    placed(bid_id .. '/proxy', leader, 'proxy', price, limit)
  end
  soft_close()
  return accepted('A', bid_id, at_seq, limit, false, 'bid')
end

local function leader_again(bid_id, user, amount, limit)
  if amount then return lead(bid_id, user, limit, amount) end
  local to, maximum = price, math.max(leader_max, limit)
  if price == leader_max and runner_up > 0 then
    -- The old maximum had capped the price: complete the increment over the runner-up.
    to = math.max(to, math.min(runner_up + increment(runner_up), maximum))
  end
  if lifted(to, maximum) > price then return lead(bid_id, user, limit, to) end
  leader_max = maximum
  return accepted('M', bid_id, seq, price, true, 'bid')
end

-- The code with which any bid at this instant is refused. It depends on the time, not on the bid, so it is not kept
-- under the bid's key: the same bid may be sent again when the item opens.
local function refusal_by_status()
  if status == 'sold' then return 'SOLD' end
  if status == 'unsold' then return 'CLOSED' end
  if status == 'cancelled' then return 'CANCELLED' end
  if status == 'paused' then return 'PAUSED' end
  if now < start_us then return 'NOT_STARTED' end
  if end_us and now >= end_us then return 'CLOSED' end
  return nil
end

-- Applies an accepted bid to the visible price and to the maxima, whatever the time and the status.
local function count_in(user, amount, limit, bid_id)
  if leader == '' then return lead(bid_id, user, limit, amount or minimum()) end
  if user == leader then return leader_again(bid_id, user, amount, limit) end
  return against_leader(bid_id, user, amount, limit)
end

-- Remembers an accepted bid for the log; `kind` is 'b' (a bid), 'n' (it bought at once) or 'a' (void.lua).
local function log_bid(user, amount, maximum, bid_id, kind)
  logged[#logged + 1] = text[accepted_count] .. '|' .. text[shown_seq or seq] .. '|' .. bid_id .. '|' .. user .. '|'
    .. (amount and text[amount] or '') .. '|' .. (maximum and text[maximum] or '') .. '|' .. kind .. '|'
    .. (shown and text[shown] or '') .. '|' .. (answer and text[answer] or '') .. '|' .. (answered_by or '')
    .. (shown and '|01' or '|00') .. (answer and '1' or '0')
end

-- Counts a bid in and remembers it: its maximum, its bidder's number of bids, its line in the log.
local function accept(user, amount, maximum, bid_id, buys_now)
  shown, shown_seq, answer, answered_by = nil, nil, nil, nil
  local verdict
  if buys_now then
    verdict = buy_now(bid_id, user)
  else
    if maximum then proxies[user] = maximum end
    verdict = count_in(user, amount, maximum or amount, bid_id)
  end
  accepted_count, bids_counted = accepted_count + 1, bids_counted + 1
  bidders[user] = (bidders[user] or 0) + 1
  log_bid(user, amount, maximum, bid_id, buys_now and 'n' or 'b')
  return verdict
end

-- Whether the house or the item has a mark, where either has any.
local function is_marked(mark)
  return string.find(item_rulings or '', mark, 1, true) or string.find(house_rulings or '', mark, 1, true)
end

-- What was ruled on a bidder (shared/redis_layout/rulings.py): the code with which all their bids are refused, or nil, and the
-- most that one may come to, or nil. A plain item in a plain house never comes here.
local function ruled_on(user)
  local tag, flags, most = string.match(item_key, '^{[^}]*}:'), '', nil
  if string.find(item_rulings or '', 'L', 1, true) then
    flags, most = string.match(redis.call('HGET', tag .. 'rulings:' .. item_id, user) or '|', '^(%a*)|(%d*)')
  end
  if string.find(house_rulings or '', 'L', 1, true) then
    -- A seller's id has no bar in it, so nobody's id is that of such a field.
    local of_all, of_seller = unpack(redis.call('HMGET', tag .. 'rulings', user, user .. '|' .. (seller_id or '')))
    flags = flags .. string.match(of_all or '', '^%a*') .. string.match(of_seller or '', '^%a*')
  end
  if string.find(flags, 'B', 1, true) then return 'BLOCKED' end
  if is_marked('A') and not string.find(flags, 'A', 1, true) then return 'NOT_APPROVED' end
  return nil, tonumber(most)
end

-- How much more of a bidder's spending limit must be in this shard for them to lead with `most`; 0 where there is enough, or no
-- limit.
local function missing_for(user, most)
  local used, leased = credit_of(user)
  if not leased then return 0 end
  local former, here = string.match(charged or '', '^([^|]*)|(%d+)$')
  if former == user then used = used - tonumber(here) end
  return math.max(0, used + most - leased)
end

-- The same for a bid that may come to `most` and leads. What a bidder leads with already is theirs.
local function lacking(user, most)
  if not string.find(house_rulings or '', 'S', 1, true) or (user == leader and most <= leader_max) then return 0 end
  return missing_for(user, most)
end

-- A refusal for want of credit says how much is missing, and in which currency: the gateway may find it in the bidder's account,
-- and ask again.
local function beyond_limit(user, missing)
  return string.format('%s|%d|%s', refused('LIMIT_EXCEEDED', user), missing, currency), true
end

-- Decides a bid at an instant at which the item takes bids. Returns the verdict, and whether it is a refusal that another
-- ruling may make good: that is not kept under the bid's key.
local function decide(user, amount, maximum, bid_id)
  if user == seller_id then return refused('OWN_ITEM', user) end
  local most
  if is_ruled then
    local code
    code, most = ruled_on(user)
    if code then return refused(code, user), true end
  end
  status = 'open' -- a scheduled item whose start has come
  if amount and buy_now_price and amount >= buy_now_price then
    local offered
    if reserve_price then offered = not reserve_met else offered = leader == '' end
    if offered then
      if most and math.max(price, buy_now_price) > most then return refused('LIMIT_EXCEEDED', user), true end
      local missing = lacking(user, math.max(price, buy_now_price))
      if missing > 0 then return beyond_limit(user, missing) end
      return accept(user, amount, maximum, bid_id, true)
    end
  end
  local limit = maximum or amount
  if user == leader and not amount then
    if limit <= leader_max then return refused('MAX_NOT_RAISED', user) end
  elseif (amount or limit) < minimum() then
    return refused('TOO_LOW', user)
  end
  if most and limit > most then return refused('LIMIT_EXCEEDED', user), true end
  -- A bid that another's maximum beats needs credit, too: otherwise the refusal would tell that no maximum beats it.
  local missing = lacking(user, limit)
  if missing > 0 then return beyond_limit(user, missing) end
  return accept(user, amount, maximum, bid_id, false)
end

-- Counts the accepted bids of each bidder: of many by two commands, since one for each would cost as much as a tenth of a bid.
local function count_bids()
  local users, counts = {}, {}
  for user in pairs(bidders) do users[#users + 1] = user end
  if #users < 2 then
    if users[1] then redis.call('HINCRBY', bidders_key, users[1], bidders[users[1]]) end
    return
  end
  for index, before in ipairs(redis.call('HMGET', bidders_key, unpack(users))) do
    local user = users[index]
    counts[2 * index - 1], counts[2 * index] = user, (tonumber(before) or 0) + bidders[user]
  end
  redis.call('HSET', bidders_key, unpack(counts))
end

-- Writes what was remembered. A void counts the item's bids again from the log; older bids are in the archive. The log
-- is bounded, so that no void keeps Redis from other work for long.
local function remember()
  for user, maximum in pairs(proxies) do redis.call('HSET', proxies_key, user, maximum) end
  count_bids()
  if #logged == 0 then return end
  if redis.call('RPUSH', accepted_key, unpack(logged)) > ACCEPTED_KEPT then
    redis.call('LTRIM', accepted_key, -ACCEPTED_KEPT, -1)
  end
end
