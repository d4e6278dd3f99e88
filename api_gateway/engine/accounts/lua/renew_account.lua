-- Gives an account a generation above one that a shard knows: the account's home lost the ruling that made that one, in a failover or
-- with a rebuilding. Otherwise neither would believe the other, and the bidder could not bid. The limit is what the home has, and
-- none where it has no account: a lost ruling is not known any more.
--
-- KEYS[1] account (hash)   KEYS[2] cursors of its home (hash)   KEYS[3] spreading (zset)   ARGV[1] user and currency
-- ARGV[2] the account's generation as it was read ('' = there was no account)   ARGV[3] the generation that the shard knows
-- Reply: 1 renewed   0 the home is lost or closed, or the account is of another generation by now, or of no older one
if not redis.call('HGET', KEYS[2], 'epoch') then return 0 end
local limit, generation, counting = unpack(redis.call('HMGET', KEYS[1], 'limit', 'generation', 'counting'))
if (generation or '') ~= ARGV[2] then return 0 end
local epoch, entry = string.match(generation or '0|0', '^(%d+)|(%d+)$')
local known_epoch, known_entry = string.match(ARGV[3], '^(%d+)|(%d+)$')
epoch, entry = tonumber(epoch), tonumber(entry)
if epoch > tonumber(known_epoch) or (epoch == tonumber(known_epoch) and entry >= tonumber(known_entry)) then return 0 end
local F = '%d'
redis.call('ZADD', KEYS[3], F:format(tonumber(redis.call('TIME')[1]) * 1000000), '$' .. ARGV[1])
redis.call('HSET', KEYS[1], 'limit', limit or '', 'generation', known_epoch .. '|' .. F:format(tonumber(known_entry) + 1),
  'state', 'counting', 'counting', F:format((tonumber(counting) or 0) + 1))
return 1
