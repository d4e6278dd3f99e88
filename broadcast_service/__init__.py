"""The live feed: sends every accepted bid of an item to all its viewers, in order."""
