"""What operators look at: how the parts are, which items are busy, what could not be archived."""
