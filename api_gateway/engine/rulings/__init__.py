"""Rulings on bidders: made in one shard, copied to the others where they are for all items."""
