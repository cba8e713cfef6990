"""A job's file: read, checked as a whole, every default filled in."""
