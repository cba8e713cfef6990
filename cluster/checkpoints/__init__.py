"""Checkpoints: folders with the state of a run after a step, which any pipeline of the same model can go on from."""
