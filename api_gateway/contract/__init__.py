"""What clients see: bodies of requests and answers, problems, and the OpenAPI document."""
