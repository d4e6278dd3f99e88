"""Nodes ask each other, over gRPC. Imported for the mode ``cluster`` alone."""
