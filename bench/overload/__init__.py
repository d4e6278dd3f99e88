"""Requests that come when they come, whether the gateway keeps up or not: below its peak, and at twice as many."""
