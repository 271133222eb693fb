"""A model that goes on learning, day after day."""
