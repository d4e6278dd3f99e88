"""The embedded stack: private Redis, NATS and PostgreSQL servers beside the platform's services, and the
`bidding` command.
"""
