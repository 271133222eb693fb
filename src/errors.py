"""The one exception for what a user can cause, and its one-line report at the command line."""

import sys
from collections.abc import Callable, Sequence


class InputError(ValueError):
    """Input that a user can mend: the message names the thing, the value, the rule and the remedy."""


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Run a program's `main(argv)` and exit: 0 if it went well, 2 with one line on stderr if the input was at fault.

    Only `InputError` and errors of the file system become one line; anything else is a defect of this
    code and keeps its traceback.
    """
    try:
        code = main(sys.argv[1:])
    except InputError as error:
        sys.exit(_report(" ".join(str(error).split())))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        sys.exit(_report(f"file{where}: {error.strerror or error}; check that it exists, may be used, and has space"))
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)


def _report(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2
