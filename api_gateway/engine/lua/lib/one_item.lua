-- Takes up the one item that a script is about. It comes after lib/item.lua, and before the script's own text.
--
-- KEYS[1..11] as `begin` says   ARGV[1] item id   ARGV[2] outbox bound (entries of this shard)   ARGV[3] recent events kept
local nothing_to_decide = begin(0, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if nothing_to_decide then return nothing_to_decide end
