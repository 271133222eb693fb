"""Cells of columns as labels, numbers and keys, by the rules that a schema gives; a module for each kind of value."""
