"""Locust users, one behaviour per file. Only Locust's own process imports these: Locust patches the standard
library.
"""
