"""The benches' own clients of HTTP."""
