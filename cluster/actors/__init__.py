"""Worker processes: Ray and its placement, the channel between them, their limits, clocks and folders."""
