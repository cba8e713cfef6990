"""Finds signs that a network learns nothing, in the data and in the course of the training."""
