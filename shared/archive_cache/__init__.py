"""Closed items out of PostgreSQL, through the read cache: what is kept, how it is packed, and when it is forgotten.

Begin with :mod:`shared.archive_cache.reads`.
"""
