"""Where workers' time went, and how much workers would idle through the schedule alone."""
