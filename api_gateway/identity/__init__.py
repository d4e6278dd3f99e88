"""Who calls, what they may call, and whose tokens no longer count."""
