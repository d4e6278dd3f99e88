"""What the services share: the domain rules, the names, the messages on the wire, and thin driver clients."""
