-- What the scripts on items share: an item's state as locals, the checks that come before any decision, the sequencing of
-- events, and the one way of writing them. Put in front of a script's own text when it is loaded. `begin` takes up an item;
-- where a script is about one item, lib/one_item.lua calls it.
--
-- The functions are made once per call of a script, and not per item: on a flush of many items that cost more than their
-- bids did. So their state is in locals around them, and `begin` sets all of it.
--
-- Numbers are integers below 2^53, so Lua's doubles are exact. redis.call writes them as integers, without an exponent, at a
-- third of what '%d' costs. In a text '%d' writes them as C's long, at a quarter of what '%.0f' costs.
-- A bid's event, verdict and line of the log are put together from parts, since string.format takes twice as long; most of
-- their numbers are the same ones, so each is made a text once (`text`).

local item_key, proxies_key, recent_key, outbox_key, cursors_key, deadlines_key, bidders_key, accepted_key, verdicts_key
local item_id, recent_kept
local AMOUNT_OVER = 9007199254740992 -- 2^53: "no higher bid is possible"
local USED_MAX = 72057594037927936 -- 2^56
local F = '%d'
-- Of each number that was asked for in this command its digits.
local text = setmetatable({}, {
  __index = function(known, number)
    local digits = F:format(number)
    known[number] = digits
    return digits
  end,
})
---@limit VERDICT_KEEP_S
---@limit ACCEPTED_KEPT

local shard_epoch, last_entry, archived_entry
local status, epoch, seq, price, leader, leader_max, runner_up, bid_count, start_price, increment_kind, increment_value,
  increment_steps_text, start_us, end_us, original_end_us, reserve_price, reserve_met, buy_now_price, seller_id, currency,
  soft_trigger_us, soft_extend_us, soft_mode, soft_max_count, hard_end_us, extensions, paused_us, bids_counted, accepted_count,
  voids, updated_us
-- Which rulings there are (shared/redis_layout/rulings.py): of this item, and of the house; nil or '' where there are none.
local item_rulings, house_rulings
-- For whom the item is counted against a spending limit, "<user>|<maximum>"; nil or '' for nobody.
local charged
local status_before, increment_steps, events, sealed
-- The time of Redis; and the time of this step, which is the item's last change where that is later.
local clock_us, now

-- Takes up an item, whose keys are KEYS[at + 1] and following:
--   1 item (hash)      2 proxies (hash)     3 recent (list)      4 outbox (stream)    5 cursors (hash)   6 deadlines (zset)
--   7 bidders (hash): how many accepted bids of each person stand
--   8 accepted (list): the item's newest accepted bids (shared/redis_layout/accepted_log.py)
--   9 verdicts (hash): those of accepted bids under their keys, as shared/redis_layout/stored_verdicts.py says
--   10, 11 refusals and older refusals (hashes), which only place_bids.lua uses; all share one hash slot
-- Returns nothing, or the reply where there is nothing to decide:
--   { 1 } no such item, { 2 } this shard has no cursors: Redis lost it, { 3 } outbox at its bound (`outbox_max` entries)
local function begin(at, id, outbox_max, recent_max)
  item_key, proxies_key, recent_key, outbox_key, cursors_key, deadlines_key, bidders_key, accepted_key, verdicts_key =
    unpack(KEYS, at + 1, at + 9)
  item_id, recent_kept, events, increment_steps = id, recent_max, {}, nil
  -- What only the archive may know, one JSON object each (shared/sealed.py). It goes into the outbox beside the events,
  -- so that maxima and the verdicts under header keys survive the loss of this Redis.
  sealed = {}
  shard_epoch, last_entry, archived_entry, house_rulings = unpack(redis.call('HMGET', cursors_key, 'epoch', 'next', 'archived',
    'rulings'))
  if not shard_epoch then return { 2 } end
  last_entry = tonumber(last_entry)
  status, epoch, seq, price, leader, leader_max, runner_up, bid_count, start_price, increment_kind, increment_value,
    increment_steps_text, start_us, end_us, original_end_us, reserve_price, reserve_met, buy_now_price, seller_id, currency,
    soft_trigger_us, soft_extend_us, soft_mode, soft_max_count, hard_end_us, extensions, paused_us, bids_counted,
    accepted_count, voids, updated_us, item_rulings, charged = unpack(redis.call('HMGET', item_key,
    'status', 'epoch', 'seq', 'price', 'leader', 'leader_max', 'runner_up', 'bid_count', 'start_price', 'increment_kind',
    'increment_value', 'increment_steps', 'start_us', 'end_us', 'original_end_us', 'reserve_price', 'reserve_met',
    'buy_now_price', 'seller_id', 'currency', 'soft_trigger_us', 'soft_extend_us', 'soft_mode', 'soft_max_count',
    'hard_end_us', 'extensions', 'paused_us', 'bids_counted', 'accepted', 'voids', 'updated_us', 'rulings',
    'charged'))
  if not status then return { 1 } end
  if last_entry - tonumber(archived_entry) >= outbox_max then return { 3 } end

  if not clock_us then
    local time = redis.call('TIME')
    clock_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  -- Never before the item's own last event (decision 0040). Otherwise, where the clock goes back:
  -- 1. An item opens at its start, or is created "now", and takes bids.
  -- 2. TIME goes back behind that start, by NTP or by a failover to a slower machine.
  -- 3. Its bids are NOT_STARTED until the clock has caught up, and a pause that ends then has a negative length.
  now = math.max(clock_us, tonumber(updated_us) or 0)

  status_before = status
  seq, price, leader_max, runner_up, bid_count = tonumber(seq), tonumber(price), tonumber(leader_max), tonumber(runner_up),
    tonumber(bid_count)
  start_price, start_us, end_us, hard_end_us = tonumber(start_price), tonumber(start_us), tonumber(end_us), tonumber(hard_end_us)
  increment_value, reserve_price, buy_now_price = tonumber(increment_value), tonumber(reserve_price), tonumber(buy_now_price)
  extensions, paused_us, reserve_met = tonumber(extensions), tonumber(paused_us), reserve_met == '1'
  -- `accepted_count`: accepted bids, raised maxima among them. `voids`: how many of these are struck. `bids_counted`: how
  -- many of the others are in the bidders hash: all, unless the item was bid on before that hash existed. (On an item
  -- that is older than `accepted`, the count begins at a number with which no log begins.)
  bids_counted, accepted_count, voids = tonumber(bids_counted) or 0, tonumber(accepted_count) or bid_count, tonumber(voids) or 0
end

-- The increment at a price. A percent is taken of whole ten-thousands and of the rest apart, to stay below 2^53.
local function increment(at)
  if increment_kind == 'flat' then return increment_value end
  if increment_kind == 'percent' then
    local rest = math.fmod(at, 10000)
    return math.max(1, (at - rest) / 10000 * increment_value + math.ceil(rest * increment_value / 10000))
  end
  if not increment_steps then
    increment_steps = {}
    for below, step in string.gmatch(increment_steps_text, '(%d+):(%d+)') do
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
  events[#events + 1] = '{"type":"' .. kind .. '","item_id":"' .. item_id .. '","epoch":' .. epoch .. ',"seq":' .. text[seq]
    .. ',"ts_us":' .. text[now] .. ',' .. fields .. '"current_bid":' .. text[price]
    .. ',"highest_bidder_id":' .. (leader == '' and 'null' or '"' .. leader .. '"')
    .. ',"bid_count":' .. text[bid_count] .. ',"min_next_bid":' .. text[minimum()] .. ',"status":"' .. status
    .. '","end_us":' .. (end_us and text[end_us] or 'null') .. ',"reserve_met":' .. (reserve_met and 'true' or 'false')
    .. ',"currency":"' .. currency .. '"}'
end

-- The shard's part of a bidder's account (shared/redis_layout/accounts.py): how much of it is used in the item's shard,
-- and how much may be, nil for any amount. Nothing where no limit was ever set for the bidder in this currency. Of a lease
-- from before another copy of the shard was admitted, only what is used already may be used.
local function credit_of(user)
  local field = user .. '|' .. currency
  local used, lease = unpack(redis.call('HMGET', string.match(item_key, '^{[^}]*}:') .. 'credit', 'u:' .. field, 'l:' .. field))
  if not used then return nil end
  used = tonumber(used)
  local granted, its_admission = string.match(lease, '^(%d*)|%d+|%d+|%d+|?(.*)$')
  granted = tonumber(granted)
  if granted and granted > used and its_admission ~= (redis.call('HGET', cursors_key, 'admission') or '') then granted = used end
  return used, granted
end

-- Counts the item for whom it has to be after this decision: the leader, while the item can take bids. So what is used of a
-- limit is the sum of the maxima with which its bidder leads, in every state that anybody can see.
local function charge()
  local user, amount = '', 0
  if leader ~= '' and (status == 'open' or status == 'paused' or status == 'scheduled') and credit_of(leader) then
    user, amount = leader, leader_max
  end
  local after = user == '' and '' or user .. '|' .. F:format(amount)
  if after == (charged or '') then return end
  local credit_key = string.match(item_key, '^{[^}]*}:') .. 'credit'
  local former, former_amount = string.match(charged or '', '^([^|]*)|(%d+)$')
  -- What is used in one shard stays below 2^56, far above every limit, and so the sum of all shards below 2^63: past that Redis
  -- refuses to count, after the event of this decision is written. A lead that would pass it is counted as nothing, so
  -- that its credit is given back.
  if user ~= '' and credit_of(user) + amount - (former == user and tonumber(former_amount) or 0) > USED_MAX then
    amount = 0
    after = user .. '|0'
  end
  redis.call('HSET', item_key, 'charged', after)
  if former and former_amount ~= '0' then redis.call('HINCRBY', credit_key, 'u:' .. former .. '|' .. currency, '-' .. former_amount) end
  if user ~= '' then redis.call('HINCRBY', credit_key, 'u:' .. user .. '|' .. currency, F:format(amount)) end
  charged = after
end

-- Writes the state and the events of this decision: one outbox entry, the item's recent events, and what is kept under keys
-- (`kept`: field, value, ...; nothing by default). Returns the entry.
-- A decision without an event (a raised maximum) changes nothing that anybody can see, not even the time of the last
-- change.
--
-- Redis undoes nothing when a command of a script fails, so the order decides what a failure leaves behind. XADD comes
-- before all other writes here, because it may be refused: by an outbox that differs from the cursors, or when memory
-- is full (which Redis checks only at a script's first write). Then come cursors and state, hashes that were read
-- above.
-- Verdicts follow at once, after the event that they tell of: without its verdict, a bid whose event is out would be
-- decided again when it is repeated.
local function commit(kept)
  local n = last_entry + 1
  local id, event_list = F:format(n) .. '-0', '[' .. table.concat(events, ',') .. ']'
  if #sealed == 0 then
    redis.call('XADD', outbox_key, id, 'item', item_id, 'events', event_list)
  else
    local sealed_list = '[' .. table.concat(sealed, ',') .. ']'
    redis.call('XADD', outbox_key, id, 'item', item_id, 'events', event_list, 'sealed', sealed_list)
  end
  redis.call('HSET', cursors_key, 'next', n)
  if #events == 0 then
    redis.call('HSET', item_key, 'leader_max', leader_max, 'bids_counted', bids_counted, 'accepted', accepted_count)
  else
    redis.call('HSET', item_key, 'status', status, 'seq', seq, 'price', price, 'leader', leader, 'leader_max', leader_max,
      'runner_up', runner_up, 'bid_count', bid_count, 'bids_counted', bids_counted, 'accepted', accepted_count,
      'reserve_met', reserve_met and '1' or '0', 'updated_us', now)
  end
  if kept and #kept > 0 then redis.call('HSET', verdicts_key, unpack(kept)) end
  if (charged or '') ~= '' or string.find(house_rulings or '', 'S', 1, true) then charge() end
  if #events > 0 and redis.call('LPUSH', recent_key, unpack(events)) > recent_kept then
    redis.call('LTRIM', recent_key, 0, recent_kept - 1)
  end
  if status == 'sold' or status == 'unsold' or status == 'cancelled' then
    -- The item takes no more bids, so no new bid can use an old id. A void after the close does not prolong this.
    redis.call('EXPIRE', verdicts_key, VERDICT_KEEP_S, 'NX')
    -- Once this entry is archived, and the item exported, the item leaves Redis (archival_worker/eviction/lua/evict.lua).
    redis.call('ZADD', string.match(item_key, '^{[^}]*}:') .. 'closed', n, item_id)
  end
  return n
end

-- Seals what was just decided for a user: how it left the leader's maximum and the runner-up, and `fields`.
local function seal(user, fields)
  sealed[#sealed + 1] = string.format(
    '{"seq":%d,"ts_us":%d,"user_id":"%s","leader_id":%s,"leader_max":%d,"runner_up":%d%s}',
    seq, now, user, leader == '' and 'null' or '"' .. leader .. '"', leader_max, runner_up, fields)
end

-- Writes the end after it moved, and when the closer must look at the item next (never, where there is no end).
local function reschedule(next_us)
  redis.call('HSET', item_key, 'end_us', end_us or '', 'hard_end_us', hard_end_us or '', 'extensions', extensions,
    'paused_us', paused_us or '')
  if next_us then
    redis.call('ZADD', deadlines_key, next_us, item_id)
  else
    redis.call('ZREM', deadlines_key, item_id)
  end
end
