"""Pages and comparisons of runs, made of what they leave behind."""
