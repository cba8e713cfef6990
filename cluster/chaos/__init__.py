"""Faults on request for runs, and soaks: random campaigns of faults with a verdict."""
