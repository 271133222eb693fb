"""Who does the pieces of a step: processes of this machine, or the workers of a cluster."""
