"""Reads a job file, checks it as a whole and fills in every default."""
