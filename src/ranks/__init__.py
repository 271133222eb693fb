"""Several processes that train together: their group, which holds what, what travels, and how they are started."""
