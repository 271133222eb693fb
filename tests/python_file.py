"""A program that does what a file of Python says, to be started by `run_program` of stopping.py."""

import runpy
from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Run the file that the first argument names."""
    runpy.run_path(argv[0], run_name="__main__")
