"""What makes the load: bidders and viewers, what they know, what they are answered, and Locust as a process."""
