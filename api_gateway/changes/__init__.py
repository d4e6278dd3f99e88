"""What sellers and operators do: create items, act on them, and rule on bidders."""
