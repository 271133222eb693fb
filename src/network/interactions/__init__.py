"""How vectors interact, a module each."""
