"""What uses AWS: metrics, secrets, service discovery."""
