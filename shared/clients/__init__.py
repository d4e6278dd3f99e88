"""Thin driver clients: open, close, explicit options. Only composition roots and tests call them."""

from shared.clients import cancellation

# Here, so that no driver is opened without it.
cancellation.install()
