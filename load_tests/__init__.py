"""Load against a running platform, and the proof afterwards that nothing was lost, doubled or reordered.

``python -m load_tests`` runs the whole of it; ``verify`` is the proof alone, for tests that make their own
load; ``replay`` feeds recorded auctions through the HTTP API.
"""
