"""Moments in which a run's files change, by name, so that a test can stop or kill the process in just that moment.

Nobody listens in a run of a user's, where a moment costs one call a file or save, and none a step.
"""

from collections.abc import Callable

listeners: list[Callable[[str], None]] = []


def happens(moment: str) -> None:
    """Tell who listens."""
    for listener in listeners:
        listener(moment)
