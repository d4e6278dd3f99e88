-- Decides up to 256 bids on one item, in order, in one atomic step: verdicts, sequence numbers, state, outbox.
-- The rule is in lib/bidding.lua.
--
-- lib/item.lua and lib/bidding.lua come first: KEYS[1..8], ARGV[1..3].
-- KEYS[k], KEYS[k+1]       for each bid that has a key: its idempotency entry and the owner entry of its key
-- ARGV[4] seconds that a verdict is kept after the end (or after now, where the item has no end)
-- ARGV[5..] seven for each bid: user id, amount ('' = none), maximum ('' = none), bid id, k (0 = no key),
--           fingerprint of the content, the key of the header ('' where there is no key, or it is the bid id itself)
--
-- Reply: { 0, n, last, verdict, verdict, ... } with n the outbox entry written (0 = none) and last the newest one of the
--        shard: when that is published, so is the event of every verdict here, also of one that was stored before.
-- Verdict, fields joined by '|':
--   A|bid id|seq|current bid|your bid|leads|min next bid|reserve met|kind|epoch|ts   accepted
--   M|...                    the same, a maximum raised without any event; its outbox entry has no event either
--   R|code|current bid|leads|min next bid|reserve met                                refused by the rules
--   K                        key or bid id used before with other content

local BID_FIELDS = 7

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

local keep_s = tonumber(ARGV[4])
local reply = { 0, 0, tonumber(cursors[2]) }
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

remember()
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
