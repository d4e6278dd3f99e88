"""Code that the services share: domain rules, names, messages, and thin clients of the servers."""
