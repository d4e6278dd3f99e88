"""Thin driver clients: open, close, explicit options. Only composition roots and tests call them."""
