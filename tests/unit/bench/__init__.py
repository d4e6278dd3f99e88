"""Tests of the load runs' pure parts; the HTTP side is played in the process."""
