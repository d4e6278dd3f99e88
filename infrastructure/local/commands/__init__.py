"""The subcommands of `bidding`, each group of them in a wing; here is what they share."""
