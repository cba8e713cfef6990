"""When a run saves a checkpoint, and which ones it keeps. No I/O."""
