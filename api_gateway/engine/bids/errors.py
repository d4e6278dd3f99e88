"""What a bid can meet in Redis that is no verdict."""


class ItemMissing(Exception):
    """The item has no hash: it was never opened, or it was known to this gateway and is gone."""
