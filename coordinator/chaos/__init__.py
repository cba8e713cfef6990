"""Faults on request: which are possible, random campaigns, and what came of them."""
