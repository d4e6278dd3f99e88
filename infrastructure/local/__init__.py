"""The embedded stack, private servers beside the platform's services, and the `bidding` command."""
