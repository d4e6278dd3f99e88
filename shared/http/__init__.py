"""What every HTTP server of the platform has in common."""
