"""What all Locust users share. Only Locust's own processes import these: Locust patches the standard library."""
