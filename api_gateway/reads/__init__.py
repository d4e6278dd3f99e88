"""What the gateway tells of items and their bids: lists, histories, and what PostgreSQL has."""
