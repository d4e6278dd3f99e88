"""Locust users, one behaviour per file, each a locustfile: ``locust -f load_tests/scenarios/mixed.py``.

``locust -f load_tests/scenarios --class-picker`` has all of them, to choose from on Locust's page. Only Locust's own
processes import these: Locust patches the standard library.
"""
