"""What leaves Redis: closed items, once they are archived and exported."""
