-- Decides up to 256 bids on one item, in order, in one atomic step: verdicts, sequence numbers, state, outbox.
-- The rule is shared/domain/bidding.py; this is the same rule next to the data. All keys share one hash slot.
--
-- KEYS[1] item (hash)      KEYS[2] proxies (hash)     KEYS[3] recent (list)
-- KEYS[4] outbox (stream)  KEYS[5] cursors (hash)     KEYS[6] deadlines (zset)
-- KEYS[k], KEYS[k+1]       for each bid that has a key: its idempotency entry and the owner entry of its key
--
-- ARGV[1] item id          ARGV[2] outbox bound (entries of this shard)   ARGV[3] recent events kept
-- ARGV[4] seconds that a verdict is kept after the end (or after now, where the item has no end)
-- ARGV[5..] seven for each bid: user id, amount ('' = none), maximum ('' = none), bid id, k (0 = no key),
--           fingerprint of the content, '1' where the key is the bid id itself
--
-- Reply: { 0, n, verdict, verdict, ... } with n the outbox entry written (0 = none), or
--        { 1 } no such item, { 2 } this shard has no cursors: Redis lost it, { 3 } outbox at its bound.
-- Verdict, fields joined by '|':
--   A|bid id|seq|current bid|your bid|leads|min next bid|reserve met|kind|epoch|ts   accepted
--   M|...                    the same, a maximum raised without any event
--   R|code|current bid|leads|min next bid|reserve met                                refused by the rules
--   K                        key or bid id used before with other content
--
-- Numbers are integers below 2^53, so Lua's doubles are exact; '%.0f' writes them without an exponent.

local item_key, proxies_key, recent_key = KEYS[1], KEYS[2], KEYS[3]
local outbox_key, cursors_key, deadlines_key = KEYS[4], KEYS[5], KEYS[6]
local item_id = ARGV[1]
local AMOUNT_OVER = 9007199254740992 -- 2^53: "no higher bid is possible"
local BID_FIELDS = 7

local cursors = redis.call('HMGET', cursors_key, 'epoch', 'next', 'archived')
if not cursors[1] then return { 2 } end
local f = redis.call('HMGET', item_key,
  'status', 'epoch', 'seq', 'price', 'leader', 'leader_max', 'runner_up', 'bid_count',           -- 1..8
  'start_price', 'increment_kind', 'increment_value', 'increment_steps', 'start_us', 'end_us',   -- 9..14
  'original_end_us', 'reserve_price', 'reserve_met', 'buy_now_price', 'seller_id', 'currency',   -- 15..20
  'soft_trigger_us', 'soft_extend_us', 'soft_mode', 'soft_max_count', 'hard_end_us', 'extensions') -- 21..26
if not f[1] then return { 1 } end
if tonumber(cursors[2]) - tonumber(cursors[3]) >= tonumber(ARGV[2]) then return { 3 } end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local status, epoch, seq, price = f[1], f[2], tonumber(f[3]), tonumber(f[4])
local leader, leader_max, runner_up, bid_count = f[5], tonumber(f[6]), tonumber(f[7]), tonumber(f[8])
local start_price, start_us, end_us = tonumber(f[9]), tonumber(f[13]), tonumber(f[14])
local increment_kind, increment_value, increment_steps = f[10], tonumber(f[11]), nil
local reserve_price, reserve_met, buy_now_price = tonumber(f[16]), f[17] == '1', tonumber(f[18])
local seller_id, currency = f[19], f[20]
local extensions = tonumber(f[26])

local events, proxies = {}, {}
local end_moved, state_changed = false, false

-- The increment at a price. A percent is taken of whole ten-thousands and of the rest apart, to stay below 2^53.
local function increment(at)
  if increment_kind == 'flat' then return increment_value end
  if increment_kind == 'percent' then
    local rest = math.fmod(at, 10000)
    return math.max(1, (at - rest) / 10000 * increment_value + math.ceil(rest * increment_value / 10000))
  end
  if not increment_steps then
    increment_steps = {}
    for below, step in string.gmatch(f[12], '(%d+):(%d+)') do
      increment_steps[#increment_steps + 1] = { tonumber(below), tonumber(step) }
    end
  end
  for _, step in ipairs(increment_steps) do
    if at < step[1] then return step[2] end
  end
  return increment_value
end

local function minimum()
  if leader == '' then return math.max(start_price, 1) end
  return math.min(price + increment(price), AMOUNT_OVER)
end

-- Sequences one event. Ids are free of quotes and backslashes by their patterns, so nothing needs escaping here.
local function event(kind, fields)
  seq = seq + 1
  events[#events + 1] = string.format(
    '{"type":"%s","item_id":"%s","epoch":%s,"seq":%.0f,"ts_us":%.0f,%s"current_bid":%.0f,"highest_bidder_id":%s,'
      .. '"bid_count":%.0f,"min_next_bid":%.0f,"status":"%s","end_us":%s,"reserve_met":%s,"currency":"%s"}',
    kind, item_id, epoch, seq, now, fields, price, leader == '' and 'null' or '"' .. leader .. '"',
    bid_count, minimum(), status, end_us and string.format('%.0f', end_us) or 'null',
    reserve_met and 'true' or 'false', currency)
end

local function placed(bid_id, user, kind, amount, previous)
  event('bid', string.format('"bid_id":"%s","user_id":"%s","kind":"%s","amount":%.0f,"previous_bid":%.0f,',
    bid_id, user, kind, amount, previous))
end

local function accepted(mark, bid_id, at_seq, yours, leads, kind)
  return string.format('%s|%s|%.0f|%.0f|%.0f|%s|%.0f|%s|%s|%s|%.0f', mark, bid_id, at_seq, price, yours,
    leads and '1' or '0', minimum(), reserve_met and '1' or '0', kind, epoch, now)
end

local function refused(code, user)
  return string.format('R|%s|%.0f|%s|%.0f|%s', code, price, user == leader and '1' or '0', minimum(),
    reserve_met and '1' or '0')
end

-- A maximum that reaches an unmet reserve shows the reserve; one below it is shown in full.
local function lifted(to, maximum)
  if not reserve_price or reserve_met then return to end
  return math.max(to, math.min(maximum, reserve_price))
end

local function soft_close()
  local trigger, extend = tonumber(f[21]), tonumber(f[22])
  if not end_us or not trigger or end_us - now >= trigger then return end
  local max_count, hard_end = tonumber(f[24]), tonumber(f[25])
  if max_count > 0 and extensions >= max_count then return end
  local new_end = (f[23] == 'from_bid' and now or end_us) + extend
  if hard_end then new_end = math.min(new_end, hard_end) end
  if new_end <= end_us then return end
  local previous = end_us
  end_us, extensions, end_moved = new_end, extensions + 1, true
  event('extended', string.format('"previous_end_us":%.0f,"original_end_us":%s,"extensions":%.0f,',
    previous, f[15], extensions))
end

-- The bidder leads at `to`, or at the reserve where the maximum reaches it.
local function lead(bid_id, user, limit, to)
  local maximum = user == leader and math.max(limit, leader_max) or limit
  local previous = price
  price = lifted(to, maximum)
  leader, leader_max, bid_count = user, maximum, bid_count + 1
  if reserve_price and price >= reserve_price then reserve_met = true end
  placed(bid_id, user, 'bid', price, previous)
  -- Not after the soft close: the bid's own answer carries the bid's own sequence number.
  local at_seq = seq
  soft_close()
  return accepted('A', bid_id, at_seq, price, true, 'bid')
end

local function buy_now(bid_id, user)
  local previous = price
  if user ~= leader then runner_up = leader_max end
  price, leader, leader_max, bid_count, reserve_met = buy_now_price, user, buy_now_price, bid_count + 1, true
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
  -- The standing maximum beats the newcomer at once: the bid counts at its full height, then the maximum answers.
  -- On a tie the earlier maximum leads at that very amount, without an answer.
  local previous = price
  price, runner_up, bid_count = limit, limit, bid_count + 1
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
  local to = price
  if price == leader_max and runner_up > 0 then
    -- The old maximum had capped the price: complete the increment over the runner-up.
    to = math.max(to, math.min(runner_up + increment(runner_up), limit))
  end
  if lifted(to, limit) > price then return lead(bid_id, user, limit, to) end
  leader_max, state_changed = limit, true
  return accepted('M', bid_id, seq, price, true, 'bid')
end

-- The code with which any bid at this instant is refused. It depends on the hour, not on the bid, so it is not kept
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

local function decide(user, amount, maximum, bid_id)
  if user == seller_id then return refused('OWN_ITEM', user) end
  status = 'open' -- a scheduled item whose start has come
  if amount and buy_now_price and amount >= buy_now_price then
    local offered
    if reserve_price then offered = not reserve_met else offered = leader == '' end
    if offered then return buy_now(bid_id, user) end
  end
  local limit = maximum or amount
  if user == leader and not amount then
    if limit <= leader_max then return refused('MAX_NOT_RAISED', user) end
  elseif (amount or limit) < minimum() then
    return refused('TOO_LOW', user)
  end
  if maximum then proxies[user] = string.format('%.0f', maximum) end
  if leader == '' then return lead(bid_id, user, limit, amount or minimum()) end
  if user == leader then return leader_again(bid_id, user, amount, limit) end
  return against_leader(bid_id, user, amount, limit)
end

local keep_s = tonumber(ARGV[4])
local reply = { 0, 0 }
for at = 5, #ARGV, BID_FIELDS do
  local user, bid_id, fingerprint = ARGV[at], ARGV[at + 3], ARGV[at + 5]
  local key_at = tonumber(ARGV[at + 4])
  local verdict
  if key_at > 0 then
    local stored = redis.call('GET', KEYS[key_at])
    if stored then
      local split = string.find(stored, '\n', 1, true)
      verdict = string.sub(stored, 1, split - 1) == fingerprint and string.sub(stored, split + 1) or 'K'
    elseif ARGV[at + 6] == '1' then
      -- One bid id names one bid of this item, whoever sends it.
      local owner = redis.call('GET', KEYS[key_at + 1])
      if owner and owner ~= user then verdict = 'K' end
    end
  end
  if not verdict then
    local code = refusal_by_status()
    if code then
      verdict = refused(code, user)
    else
      verdict = decide(user, tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), bid_id)
      if key_at > 0 then
        local ttl = keep_s
        if end_us and end_us > now then ttl = ttl + math.ceil((end_us - now) / 1000000) end
        redis.call('SET', KEYS[key_at], fingerprint .. '\n' .. verdict, 'EX', string.format('%.0f', ttl))
        redis.call('SET', KEYS[key_at + 1], user, 'EX', string.format('%.0f', ttl), 'NX')
      end
    end
  end
  reply[#reply + 1] = verdict
end

for user, maximum in pairs(proxies) do redis.call('HSET', proxies_key, user, maximum) end
if state_changed and #events == 0 then
  redis.call('HSET', item_key, 'leader_max', string.format('%.0f', leader_max))
end
if #events > 0 then
  local n = redis.call('HINCRBY', cursors_key, 'next', 1)
  local F = '%.0f'
  redis.call('HSET', item_key, 'status', status, 'seq', F:format(seq), 'price', F:format(price), 'leader', leader,
    'leader_max', F:format(leader_max), 'runner_up', F:format(runner_up), 'bid_count', F:format(bid_count),
    'reserve_met', reserve_met and '1' or '0', 'updated_us', F:format(now))
  if end_moved then
    redis.call('HSET', item_key, 'end_us', F:format(end_us), 'extensions', F:format(extensions))
    redis.call('ZADD', deadlines_key, F:format(end_us), item_id)
  end
  if status == 'sold' then redis.call('ZREM', deadlines_key, item_id) end
  redis.call('XADD', outbox_key, F:format(n) .. '-0', 'item', item_id, 'events', '[' .. table.concat(events, ',') .. ']')
  redis.call('LPUSH', recent_key, unpack(events))
  redis.call('LTRIM', recent_key, 0, tonumber(ARGV[3]) - 1)
  reply[2] = n
end
return reply
