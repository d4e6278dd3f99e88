"""Where values are kept: bounded by bytes, with a rule about what has to go."""
