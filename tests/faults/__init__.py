"""Faults on purpose, over the four commands: run by `make faults`, a small part by the tests."""
