"""The yardstick of the reference reports: bids decided by WATCH, MULTI and EXEC instead of one script."""
