"""Group commit, the Lua scripts, the outbox relay."""
