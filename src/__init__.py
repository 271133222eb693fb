"""DLRM on MindSpore: the library behind the programs at the top of the repository."""
