"""What is read from PostgreSQL instead of Redis: closed items, their histories, pages of the catalogue.

Any service may read here; only the archival worker writes. Nothing here tells a maximum or a reserve price.
"""
