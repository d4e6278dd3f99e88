"""What the judge is made of; `tests/faults/history.py` puts it together."""
