"""Load against a running platform, and the proof afterwards that nothing was lost, doubled or reordered.

``run`` is the whole of it (``python -m load_tests``); ``scenarios`` and ``locustfile`` are what Locust runs,
``generator`` what all load is made of; ``proof`` compares the stores, also for tests that make their own load;
``replay`` feeds recorded auctions through the HTTP API.
"""
