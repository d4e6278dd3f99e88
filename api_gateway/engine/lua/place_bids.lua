-- Decides bids on up to 64 items, up to 256 bids in all, in the order of each item's bids: verdicts, sequence numbers, state,
-- outbox. Each item is decided in one atomic step; a step that fails changes nothing for the others. The rule is in
-- lib/bidding.lua.
--
-- lib/item.lua and lib/bidding.lua come first.
-- KEYS     of each item the eleven that `begin` (lib/item.lua) names
-- ARGV[1] outbox bound (entries of a shard)   ARGV[2] recent events kept
-- ARGV[3] most refusals kept per item   ARGV[4] most of them per bidder   ARGV[5] seconds kept after the last one
-- ARGV[6..] of each item its id, how many bids there are, and seven for each bid:
--           user, amount ('' = none), maximum ('' = none), bid_id, has_key ('1' where it came with a key, '0' without),
--           fingerprint of the content, header_key ('' where there is no key, or it is the bid id)
--
-- Reply: one per item, in order: what `begin` says, the error with which it failed, or
--        { 0, n, last, epoch, verdict, verdict, ... } with n the outbox entry written (0 = none), last the shard's
--        newest entry, and epoch the shard's. When `last` is published, so is the event of every verdict here, also of
--        a verdict that was stored before.
-- Verdict, fields joined by '|':
--   A|bid id|seq|current bid|your bid|leads|min next bid|reserve met|kind|epoch|ts   accepted
--   M|...                    the same, a maximum raised without any event; its outbox entry has no event either
--   R|code|current bid|leads|min next bid|reserve met                                refused by the rules
--   K                        key or bid id used before with other content

local OUTBOX_MAX, RECENT_KEPT = tonumber(ARGV[1]), tonumber(ARGV[2])
local REFUSALS_KEPT, REFUSALS_OF_ONE, REFUSALS_KEPT_S = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local FIRST_ITEM, ITEM_KEYS, BID_FIELDS = 6, 11, 7
local refusals_key, older_key

-- The arguments of the bid that begins at ARGV[at], in the order above.
local function bid_at(at)
  return unpack(ARGV, at, at + BID_FIELDS - 1)
end

-- The key of a bid, and whether it is its bid id; nil without a key.
local function key_of(bid_id, has_key, header_key)
  if has_key == '0' then return nil, false end
  if header_key ~= '' then return header_key, false end
  return bid_id, true
end

-- Whether a bid has facts that no event tells: a maximum, a key of its own, or an amount that differs from the price it
-- set. A plain bid has none, and costs nothing here.
local function is_sealed(amount, maximum, header_key)
  return maximum or header_key ~= '' or (status == 'sold' and amount ~= price)
end

-- Keeps the facts of an accepted bid. Amounts are as they were sent: as text.
local function seal_bid(user, amount, maximum, bid_id, key, is_bid_id, verdict)
  if not key then
    key = 'null'
  elseif is_bid_id then
    key = '"' .. bid_id .. '"'
  else
    key = cjson.encode(key) -- a header may have quotes and backslashes, other ids never do
  end
  seal(user, string.format(',"bid_id":"%s","amount":%s,"max_amount":%s,"key":%s,"verdict":"%s"', bid_id,
    amount == '' and 'null' or amount, maximum == '' and 'null' or maximum, key, verdict))
end

-- Where a verdict of this user under this key may be (shared/redis_layout/stored_verdicts.py).
local function fields_of(user, key)
  return 'u:' .. user .. '|' .. key, 'h:' .. key, 'b:' .. key
end

-- The fields under which verdicts of the bids from ARGV[first] to before ARGV[behind] may be.
local function fields_asked(first, behind)
  local asked = {}
  for at = first, behind - 1, BID_FIELDS do
    local user, _, _, bid_id, has_key, _, header_key = bid_at(at)
    local key, n = key_of(bid_id, has_key, header_key), #asked
    if key then asked[n + 1], asked[n + 2], asked[n + 3] = fields_of(user, key) end
  end
  return asked
end

-- What one of the hashes has under the keys of these bids. Each bid of this call adds its verdict here: a later bid of
-- the same call must find it, and Redis gets it only after the events.
local function stored_in(hash_key, asked)
  local found = {}
  if #asked > 0 then
    for index, entry in ipairs(redis.call('HMGET', hash_key, unpack(asked))) do
      if entry then found[asked[index]] = entry end
    end
  end
  return found
end

local verdicts, refusals, places

-- Verdicts that are older than these hashes are strings of their own, and expire. An item of that age has no
-- `keeps_verdicts`.
local is_older_item
local function verdict_of_string(user, key, fingerprint, is_bid_id)
  if is_older_item == nil then is_older_item = not redis.call('HGET', item_key, 'keeps_verdicts') end
  if not is_older_item then return nil end
  local tag = string.match(item_key, '^{[^}]*}:')
  local entry = redis.call('GET', tag .. 'idem:' .. item_id .. ':' .. user .. ':' .. key)
  if entry then
    local sent, line = string.match(entry, '^([^\n]*)\n(.*)$')
    return sent == fingerprint and line or 'K'
  end
  local owner = is_bid_id and redis.call('GET', tag .. 'keyowner:' .. item_id .. ':' .. key)
  return owner and owner ~= user and 'K' or nil
end

-- The verdict that was given under this key before, or nil. A bidder's header keys and bid ids are one name space. A
-- bid id also names one bid of the item, whoever sends it. A header key of another bidder does not count.
local function known_verdict(user, key, fingerprint, is_bid_id)
  local is_taken = false
  local other, first, named = fields_of(user, key)
  for _, place in ipairs(places) do
    for _, field in ipairs({ other, first, named }) do
      if place[field] then
        local owner, sent, line = string.match(place[field], '^([^\n]*)\n([^\n]*)\n(.*)$')
        if owner == user then return sent == fingerprint and line or 'K' end
        is_taken = is_taken or (is_bid_id and field == named)
      end
    end
  end
  if is_taken then return 'K' end
  return verdict_of_string(user, key, fingerprint, is_bid_id)
end

-- Where a verdict is put in one of the hashes.
local function field_in(place, user, key, is_bid_id)
  local other, first, named = fields_of(user, key)
  if is_bid_id then return named end
  return place[first] and other or first
end

-- Keeps refusals, in a bounded hash with these fields beside their verdicts: `n` how many there are, `c:<user>` how many the
-- user had, and `s:<user>|<slot>` which field a refusal of theirs is in. A user's slots are used in turn, so a user who
-- is refused again and again pushes out only their own refusals. At half the bound the hash replaces the older one.
local function keep_refusals(new)
  local slots = REFUSALS_OF_ONE / 2
  for at = 1, #new, 3 do
    local user, field, entry = new[at], new[at + 1], new[at + 2]
    local before = redis.call('HINCRBY', refusals_key, 'c:' .. user, 1) - 1
    local slot = 's:' .. user .. '|' .. F:format(math.fmod(before, slots))
    local count = 0
    if before < slots then
      count = redis.call('HINCRBY', refusals_key, 'n', 1)
    else
      redis.call('HDEL', refusals_key, redis.call('HGET', refusals_key, slot))
    end
    redis.call('HSET', refusals_key, slot, field, field, entry)
    redis.call('EXPIRE', refusals_key, REFUSALS_KEPT_S)
    if count >= REFUSALS_KEPT / 2 then redis.call('RENAME', refusals_key, older_key) end
  end
end

-- Decides the bids from ARGV[first] to before ARGV[behind] on the item whose keys come after KEYS[keys_before].
local function place(keys_before, id, first, behind)
  local nothing_to_decide = begin(keys_before, id, OUTBOX_MAX, RECENT_KEPT)
  if nothing_to_decide then return nothing_to_decide end
  begin_bids()
  refusals_key, older_key = KEYS[keys_before + 10], KEYS[keys_before + 11]
  is_older_item = nil
  local asked = fields_asked(first, behind)
  verdicts, refusals = stored_in(verdicts_key, asked), stored_in(refusals_key, asked)
  places = { verdicts, refusals, stored_in(older_key, asked) }

  local reply = { 0, 0, last_entry, tonumber(shard_epoch) }
  local new_verdicts, new_refusals = {}, {}
  for at = first, behind - 1, BID_FIELDS do
    local user, amount, maximum, bid_id, has_key, fingerprint, header_key = bid_at(at)
    local key, is_bid_id = key_of(bid_id, has_key, header_key)
    local verdict = key and known_verdict(user, key, fingerprint, is_bid_id)
    if not verdict then
      local code = refusal_by_status()
      if code then
        verdict = refused(code, user)
      else
        local amount_minor, maximum_minor = tonumber(amount), tonumber(maximum)
        local is_passing
        verdict, is_passing = decide(user, amount_minor, maximum_minor, bid_id)
        local is_refused = string.sub(verdict, 1, 1) == 'R'
        if is_sealed(amount_minor, maximum_minor, header_key) and not is_refused then
          seal_bid(user, amount, maximum, bid_id, key, is_bid_id, verdict)
        end
        if key and not is_passing then
          local place, new = verdicts, new_verdicts
          if is_refused then
            place, new = refusals, new_refusals
            new[#new + 1] = user
          end
          local field = field_in(place, user, key, is_bid_id)
          place[field] = user .. '\n' .. fingerprint .. '\n' .. verdict
          new[#new + 1] = field
          new[#new + 1] = place[field]
        end
      end
    end
    reply[#reply + 1] = verdict
  end

  if #events > 0 or #sealed > 0 then
    reply[2] = commit(new_verdicts)
    reply[3] = reply[2]
    remember()
    if status == 'sold' then
      reschedule(nil)
    elseif end_moved or status_before == 'scheduled' then
      reschedule(end_us)
    end
  end
  -- A refusal holds whether it is kept or not, so it is answered even when memory is full.
  if #new_refusals > 0 then pcall(keep_refusals, new_refusals) end
  return reply
end

local replies, keys_before, at = {}, 0, FIRST_ITEM
while at <= #ARGV do
  local first = at + 2
  local behind = first + tonumber(ARGV[at + 1]) * BID_FIELDS
  local ok, reply = pcall(place, keys_before, ARGV[at], first, behind)
  if not ok then
    if type(reply) ~= 'table' then reply = { err = 'ERR ' .. tostring(reply) } end
    reply = { err = reply.err }
  end
  replies[#replies + 1] = reply
  keys_before, at = keys_before + ITEM_KEYS, behind
end
return replies
