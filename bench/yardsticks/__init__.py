"""What the platform is held against: the upper limit, and what a tutorial would write."""
