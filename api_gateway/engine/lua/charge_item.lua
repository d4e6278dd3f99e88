-- Counts an item for its leader, if the leader has a spending limit and the item is not counted yet: the lead is older
-- than the limit.
--
-- lib/item.lua and lib/one_item.lua come first: KEYS[1..11], ARGV[1..3].
-- Reply: { 0 }
charge()
return { 0 }
