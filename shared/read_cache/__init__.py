"""A read cache in front of an origin such as PostgreSQL: in one process, or on several nodes that share keys.

Begin with :mod:`shared.read_cache.opening`. Nothing here imports gRPC or boto3 before a cluster is opened.
"""
