-- Sets a bidder's spending limit in a currency, or takes it back: a new generation of the account, in the bidder's home. It gives
-- no leases until all shards know the generation, and what the bidder leads with is counted.
--
-- KEYS[1] cursors (hash)   KEYS[2] outbox (stream)   KEYS[3] account (hash)   KEYS[4] spreading (zset)   KEYS[5] credit (hash)
-- ARGV[1] outbox bound (entries of a shard)   ARGV[2] most accounts   ARGV[3] what the entry names instead of an item
-- ARGV[4] user   ARGV[5] currency   ARGV[6] the limit in minor units ('' = none)   ARGV[7] the reason, ARGV[8] who, both as JSON
-- Reply: { 0, n, generation } with n the outbox entry (0 = it was so already), { 2 } this shard has no cursors,
--        { 3 } outbox at its bound, { 9 } there are too many accounts

local epoch, last_entry, archived_entry = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'next', 'archived'))
if not epoch then return { 2 } end
if tonumber(last_entry) - tonumber(archived_entry) >= tonumber(ARGV[1]) then return { 3 } end
local limit, generation = unpack(redis.call('HMGET', KEYS[3], 'limit', 'generation'))
if (limit or '') == ARGV[6] then return { 0, 0, generation or '' } end
-- Of each account every shard has two fields.
if not limit and redis.call('HLEN', KEYS[5]) >= 2 * tonumber(ARGV[2]) then return { 9 } end

local time = redis.call('TIME')
local now = string.format('%d', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local told = string.format('[{"ts_us":%s,"item_id":null,"seller_id":null,"user_id":"%s","currency":"%s","ruling":"%s",'
    .. '"approved":false,"blocked":false,"limit":%s,"reason":%s,"by":%s}]',
  now, ARGV[4], ARGV[5], ARGV[6] == '' and 'unlimit' or 'limit', ARGV[6] == '' and 'null' or ARGV[6], ARGV[7], ARGV[8])
local n = string.format('%d', tonumber(last_entry) + 1)
generation = epoch .. '|' .. n
-- First what full memory refuses; then what says that there is something to be done.
redis.call('XADD', KEYS[2], n .. '-0', 'item', ARGV[3], 'events', '[]', 'rulings', told)
redis.call('HSET', KEYS[1], 'next', n)
redis.call('ZADD', KEYS[4], now, '$' .. ARGV[4] .. '|' .. ARGV[5])
redis.call('HSET', KEYS[3], 'limit', ARGV[6], 'generation', generation, 'state', 'counting')
return { 0, n, generation }
