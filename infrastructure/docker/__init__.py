"""What runs inside of the container image beside the services, and helps around the compose stack."""
