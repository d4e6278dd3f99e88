"""The contended bidder without Locust: users on one event loop, at a fraction of Locust's cost for each bid."""
