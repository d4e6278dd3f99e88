"""Tests: `unit` needs no network, `integration` real servers, `acceptance` and `faults` the whole stack."""
