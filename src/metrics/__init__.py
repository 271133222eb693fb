"""Figures of scores, in NumPy alone: metrics, curves, intervals, and the same by field and value."""
