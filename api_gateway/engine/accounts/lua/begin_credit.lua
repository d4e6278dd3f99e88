-- Tells a shard of a generation of an account. From here on every lead of the bidder in this shard is counted, and may not go
-- beyond the shard's lease, which is none until the account is open.
--
-- KEYS[1] cursors (hash)   KEYS[2] credit (hash)
-- ARGV[1] user and currency   ARGV[2] generation   ARGV[3] '1' where there is a limit, '0' where there is none
-- ARGV[4] a mark that nobody else uses
-- Reply: { 1 } the shard knows it, and all is counted   { 2 } the shard is lost or closed   { 4, its generation } it knows a later one
--        { 3, mark } count what the bidder leads with, and take the mark away then (counted_credit.lua): until then this shard
--        reports nothing, whichever process dies
local epoch, marks, admission = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'rulings', 'admission'))
admission = admission or ''
if not epoch then return { 2 } end
local used, lease, mark = unpack(redis.call('HMGET', KEYS[2], 'u:' .. ARGV[1], 'l:' .. ARGV[1], 'c:' .. ARGV[1]))
if lease then
  local its_granted, its_epoch, its_entry = string.match(lease, '^(%d*)|(%d+)|(%d+)|')
  local new_epoch, new_entry = string.match(ARGV[2], '^(%d+)|(%d+)$')
  if its_epoch == new_epoch and its_entry == new_entry and (its_granted ~= '') == (ARGV[3] == '1') then
    return mark and { 3, mark } or { 1 }
  end
  -- Of the same generation, and only one of the two has a limit: the home lost the ruling of which the shard was told, and gave its
  -- number to another one.
  its_epoch, its_entry, new_epoch, new_entry = tonumber(its_epoch), tonumber(its_entry), tonumber(new_epoch), tonumber(new_entry)
  if its_epoch > new_epoch or (its_epoch == new_epoch and its_entry > new_entry) then
    return { 4, string.format('%d|%d', its_epoch, its_entry) }
  end
end
-- The lease begins at 0 even where credit is used: the use may be above the limit, and must not become free in this
-- shard when it is released. The account counts what is used all the same.
local granted = ARGV[3] == '1' and '0' or ''
-- The mark is set even where the shard has counted since a former generation: this shard was told before and then went
-- back, so an account that is open already does not know what it uses now.
mark = mark or ARGV[4]
redis.call('HSET', KEYS[2], 'c:' .. ARGV[1], mark)
redis.call('HSET', KEYS[2], 'u:' .. ARGV[1], used or '0', 'l:' .. ARGV[1], granted .. '|' .. ARGV[2] .. '|0|' .. admission)
if not string.find(marks or '', 'S', 1, true) then redis.call('HSET', KEYS[1], 'rulings', (marks or '') .. 'S') end
return { 3, mark }
