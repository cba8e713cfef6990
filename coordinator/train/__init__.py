"""The training loop, the port to the workers, and who is to blame when one fails."""
