"""The subcommands of `bidding`."""
