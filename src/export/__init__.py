"""What leaves the house: graphs, tables, and rows to be scored by the C++ program."""
