"""Benchmarks: measured against a yardstick in the same run, with medians and spread. Not tests; nothing here is timed
in CI."""
