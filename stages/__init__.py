"""The code that runs inside a worker: hand-written forward and backward passes in NumPy."""
