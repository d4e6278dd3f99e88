"""Programs in the container image beside the services, and helpers for the compose stack."""
