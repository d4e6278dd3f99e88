-- Decides up to 256 bids on one item, in order, in one atomic step: verdicts, sequence numbers, state, outbox.
-- The rule is shared/domain/bidding.py; this is the same rule next to the data.
--
-- lib/item.lua comes first: KEYS[1..7], ARGV[1..3].
-- KEYS[k], KEYS[k+1]       for each bid that has a key: its idempotency entry and the owner entry of its key
-- ARGV[4] seconds that a verdict is kept after the end (or after now, where the item has no end)
-- ARGV[5..] seven for each bid: user id, amount ('' = none), maximum ('' = none), bid id, k (0 = no key),
--           fingerprint of the content, the key of the header ('' where there is no key, or it is the bid id itself)
--
-- Reply: { 0, n, last, epoch, verdict, verdict, ... } with n the outbox entry written (0 = none), last the newest one of the
--        shard, and the shard's epoch: when that is published, so is the event of every verdict here, also of one that was
--        stored before.
-- Verdict, fields joined by '|':
--   A|bid id|seq|current bid|your bid|leads|min next bid|reserve met|kind|epoch|ts   accepted
--   M|...                    the same, a maximum raised without any event; its outbox entry has no event either
--   R|code|current bid|leads|min next bid|reserve met                                refused by the rules
--   K                        key or bid id used before with other content

local BID_FIELDS = 7
local proxies = {}
local bidders = {}
local end_moved = false

local function placed(bid_id, user, kind, amount, previous)
  event('bid', string.format('"bid_id":"%s","user_id":"%s","kind":"%s","amount":%d,"previous_bid":%d,',
    bid_id, user, kind, amount, previous))
end

local function accepted(mark, bid_id, at_seq, yours, leads, kind)
  return string.format('%s|%s|%d|%d|%d|%s|%d|%s|%s|%s|%d', mark, bid_id, at_seq, price, yours,
    leads and '1' or '0', minimum(), reserve_met and '1' or '0', kind, epoch, now)
end

local function refused(code, user)
  return string.format('R|%s|%d|%s|%d|%s', code, price, user == leader and '1' or '0', minimum(),
    reserve_met and '1' or '0')
end

-- One more bid of a person, and whose.
local function count_bid(user)
  bid_count, bids_counted = bid_count + 1, bids_counted + 1
  bidders[user] = (bidders[user] or 0) + 1
end

-- A maximum that reaches an unmet reserve shows the reserve; one below it is shown in full.
local function lifted(to, maximum)
  if not reserve_price or reserve_met then return to end
  return math.max(to, math.min(maximum, reserve_price))
end

local function soft_close()
  local trigger, extend = tonumber(f[21]), tonumber(f[22])
  if not end_us or not trigger or end_us - now >= trigger then return end
  local max_count = tonumber(f[24])
  if max_count > 0 and extensions >= max_count then return end
  local new_end = (f[23] == 'from_bid' and now or end_us) + extend
  if hard_end_us then new_end = math.min(new_end, hard_end_us) end
  if new_end <= end_us then return end
  local previous = end_us
  end_us, extensions, end_moved = new_end, extensions + 1, true
  event('extended', string.format('"previous_end_us":%d,"original_end_us":%s,"extensions":%d,',
    previous, f[15], extensions))
end

-- The bidder leads at `to`, or at the reserve where the maximum reaches it.
local function lead(bid_id, user, limit, to)
  local maximum = user == leader and math.max(limit, leader_max) or limit
  local previous = price
  price = lifted(to, maximum)
  leader, leader_max = user, maximum
  count_bid(user)
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
  price, leader, leader_max, reserve_met = buy_now_price, user, buy_now_price, true
  status = 'sold'
  count_bid(user)
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
  price, runner_up = limit, limit
  count_bid(user)
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
  leader_max = limit
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

-- Whether a bid has what no event tells: a maximum, a key of its own, or an amount that differs from the price it set.
-- A plain bid has not, and costs nothing here.
local function is_sealed(amount, maximum, header_key)
  return maximum or header_key ~= '' or (status == 'sold' and amount ~= price)
end

-- The facts of the accepted bid whose arguments begin at ARGV[at].
local function seal_bid(at, verdict)
  local bid_id, key = ARGV[at + 3], 'null'
  if ARGV[at + 6] ~= '' then
    key = cjson.encode(ARGV[at + 6]) -- a header has quotes and backslashes, other ids have not
  elseif ARGV[at + 4] ~= '0' then
    key = '"' .. bid_id .. '"'
  end
  seal(ARGV[at], string.format(',"bid_id":"%s","amount":%s,"max_amount":%s,"key":%s,"verdict":"%s"', bid_id,
    ARGV[at + 1] == '' and 'null' or ARGV[at + 1], ARGV[at + 2] == '' and 'null' or ARGV[at + 2], key, verdict))
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
  if maximum then proxies[user] = string.format('%d', maximum) end
  if leader == '' then return lead(bid_id, user, limit, amount or minimum()) end
  if user == leader then return leader_again(bid_id, user, amount, limit) end
  return against_leader(bid_id, user, amount, limit)
end

local keep_s = tonumber(ARGV[4])
local reply = { 0, 0, tonumber(cursors[2]), tonumber(cursors[1]) }
for at = 5, #ARGV, BID_FIELDS do
  local user, bid_id, fingerprint = ARGV[at], ARGV[at + 3], ARGV[at + 5]
  local key_at = tonumber(ARGV[at + 4])
  local verdict
  if key_at > 0 then
    local stored = redis.call('GET', KEYS[key_at])
    if stored then
      local split = string.find(stored, '\n', 1, true)
      verdict = string.sub(stored, 1, split - 1) == fingerprint and string.sub(stored, split + 1) or 'K'
    elseif ARGV[at + 6] == '' then
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
      local amount, maximum = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
      verdict = decide(user, amount, maximum, bid_id)
      if is_sealed(amount, maximum, ARGV[at + 6]) and string.sub(verdict, 1, 1) ~= 'R' then seal_bid(at, verdict) end
      if key_at > 0 then
        local ttl = keep_s
        if end_us and end_us > now then ttl = ttl + math.ceil((end_us - now) / 1000000) end
        redis.call('SET', KEYS[key_at], fingerprint .. '\n' .. verdict, 'EX', string.format('%d', ttl))
        redis.call('SET', KEYS[key_at + 1], user, 'EX', string.format('%d', ttl), 'NX')
      end
    end
  end
  reply[#reply + 1] = verdict
end

for user, maximum in pairs(proxies) do redis.call('HSET', proxies_key, user, maximum) end
for user, bids in pairs(bidders) do redis.call('HINCRBY', bidders_key, user, bids) end
if #events > 0 or #sealed > 0 then
  reply[2] = commit()
  reply[3] = reply[2]
  if status == 'sold' then
    reschedule(nil)
  elseif end_moved or f[1] == 'scheduled' then
    reschedule(end_us)
  end
end
return reply
