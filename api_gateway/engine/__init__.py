"""What decides and keeps items in Redis: group commit and the Lua scripts, rulings and spending limits, the closer, the
outbox relay; and what becomes of items that Redis has let go or lost."""
