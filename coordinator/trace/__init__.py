"""Traces of measured and predicted steps."""
