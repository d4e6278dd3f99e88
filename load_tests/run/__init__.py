"""``python -m load_tests``: load, then proof."""
