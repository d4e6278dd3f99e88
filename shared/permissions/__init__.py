"""What each service may do at Redis, NATS and PostgreSQL: the one list, and how each server is told of it.

Whoever needs a new command, key, subject or table adds it here. The embedded stack runs under these lists, so a test
whose service lacks something fails; the files of the compose stack and of Terraform are written from them.
"""
