"""Photographs of lots: taken in, examined, kept, served."""
