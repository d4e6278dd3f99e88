"""What the judge is made of; `tests/faults/rig/history.py` puts it together."""
