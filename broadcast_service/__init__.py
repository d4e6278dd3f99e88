"""The live feed: every accepted bid of an item, to everybody who watches it, in order."""
