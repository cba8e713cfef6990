"""Where workers' time went, and what the schedule alone would idle."""
