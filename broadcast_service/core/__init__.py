"""What viewers are shown, and when: pure, without a clock or a network."""
