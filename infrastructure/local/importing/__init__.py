"""`bidding import`: reads lots from a file, and creates them over HTTP."""
