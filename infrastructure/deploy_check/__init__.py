"""Before an apply on AWS: what is missing, what will be created, and what it costs."""
