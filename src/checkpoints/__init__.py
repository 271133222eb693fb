"""Checkpoints, their format, and the folder of the run that makes them."""
