-- Creates an item: its hash, its deadline and the event of seq 0, in one atomic step. All keys share one hash slot.
-- The item begins in the epoch of its shard. That is above every epoch in which an item of this id may have been before Redis
-- was lost, archived or not.
--
-- KEYS[1] item (hash)  KEYS[2] recent (list)  KEYS[3] outbox (stream)  KEYS[4] cursors (hash)  KEYS[5] deadlines (zset)
-- KEYS[6] opened (zset)
-- ARGV[1] item id      ARGV[2] outbox bound   ARGV[3] start in microseconds ('' = now)   ARGV[4] end ('' = never)
-- ARGV[5] length in microseconds where the end is counted from the start ('' = ARGV[4] holds)
-- ARGV[6] the `created` event's own fields as JSON members, each followed by a comma, without start_us
-- ARGV[7] the fence of the shard from before it was asked whether the id is new ('' where nobody can have had it)
-- ARGV[8..] the constant fields of the hash: name, value, ...
--
-- Reply: { 0, n, epoch, created, start, end ('' = never) } created, with instants in microseconds; { 1 } an item of this id exists;
--        { 2 } this shard has no cursors; { 3 } outbox at its bound; { 4 } the end is not in the future or not after the start;
--        { 5 } the fence is another one: an item has left Redis since, and may be this one. Ask again.

local item_key, recent_key, outbox_key, cursors_key, deadlines_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local item_id = ARGV[1]
local F = '%d'

local epoch, last_entry, archived_entry, run, evictions = unpack(redis.call('HMGET', cursors_key, 'epoch', 'next',
  'archived', 'run', 'evictions'))
if not epoch then return { 2 } end
if redis.call('EXISTS', item_key) == 1 then return { 1 } end
-- shared/redis_layout/cursors.py (decode_fence) has the order of events that this rules out.
if ARGV[7] ~= '' and ARGV[7] ~= epoch .. '|' .. (run or '') .. '|' .. (evictions or '0') then return { 5 } end
if tonumber(last_entry) - tonumber(archived_entry) >= tonumber(ARGV[2]) then return { 3 } end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local start_us = tonumber(ARGV[3]) or now
local end_us = tonumber(ARGV[4])
if tonumber(ARGV[5]) then end_us = start_us + tonumber(ARGV[5]) end
if end_us and (end_us <= now or end_us <= start_us) then return { 4 } end
local status = start_us <= now and 'open' or 'scheduled'
local end_text = end_us and F:format(end_us) or ''

local terms = {}
for at = 8, #ARGV, 2 do terms[ARGV[at]] = ARGV[at + 1] end
local price, reserve_met = terms.start_price, terms.reserve_price == ''

-- The event comes first, because its write may be refused: an item without its `created` event would never be archived.
local event = string.format('{"type":"created","item_id":"%s","epoch":%s,"seq":0,"ts_us":%d,%s"start_us":%d,'
    .. '"current_bid":%s,"highest_bidder_id":null,"bid_count":0,"min_next_bid":%d,"status":"%s","end_us":%s,'
    .. '"reserve_met":%s,"currency":"%s"}',
  item_id, epoch, now, ARGV[6], start_us, price, math.max(tonumber(price), 1), status, end_us and end_text or 'null',
  reserve_met and 'true' or 'false', terms.currency)
local n = tonumber(last_entry) + 1
redis.call('XADD', outbox_key, F:format(n) .. '-0', 'item', item_id, 'events', '[' .. event .. ']')
redis.call('HSET', cursors_key, 'next', n)
-- A gateway that asks whether a lost item ever existed finds it here until the archive has it (known_items.py).
-- Searching the outbox may take long.
redis.call('ZADD', KEYS[6], n, item_id)
-- Redis looks through the fields of a small hash one after the other. So those come first that each bid reads and writes.
redis.call('HSET', item_key, 'status', status, 'seq', 0, 'price', price, 'leader', '', 'leader_max', 0, 'runner_up', 0,
  'bid_count', 0, 'bids_counted', 0, 'accepted', 0, 'reserve_met', reserve_met and '1' or '0', 'updated_us', now,
  'epoch', epoch, 'start_us', start_us, 'end_us', end_text, 'voids', 0, 'extensions', 0, 'original_end_us', end_text)
redis.call('HSET', item_key, unpack(ARGV, 8))
redis.call('HSET', item_key, 'id', item_id, 'created_us', now, 'keeps_verdicts', '1')
if status == 'scheduled' then
  redis.call('ZADD', deadlines_key, start_us, item_id)
elseif end_us then
  redis.call('ZADD', deadlines_key, end_us, item_id)
end
redis.call('LPUSH', recent_key, event)
-- As text: a client may take large numbers of a script for something else.
return { 0, F:format(n), epoch, F:format(now), F:format(start_us), end_text }
