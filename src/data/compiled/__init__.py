"""Keys in C++, and the same by pandas where it can't be compiled."""
